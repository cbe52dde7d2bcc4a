package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"xenferry/lib/guest"
)

// A domain gets another identity in its configuration, and nothing else there changes.
func TestSetIdentity(t *testing.T) {
	id := uuid.New()
	text := "{ \"b_info\" : {\"name\": \"x\"}, \n\"c_info\": {\"a\": [1, {\"name\": 2}], \"name\" : %q ,\"uuid\":%q, \"z\": null}, \"name\": 7 } \n"
	got, err := setIdentity(fmt.Appendf(nil, text, "g", uuid.New()), "g--incoming", id)
	if want := fmt.Sprintf(text, "g--incoming", id); err != nil || string(got) != want {
		t.Errorf("%v: %s, want %s", err, got, want)
	}
	for _, bad := range []string{``, `[]`, `{`, `{"c_info": 7}`, `{"c_info": {}}`, `{"c_info": {"name": "g"}}`, `{"name": "g", "uuid": "x"}`} {
		if got, err := setIdentity([]byte(bad), "n", id); err == nil {
			t.Errorf("%s became %s", bad, got)
		}
		if got, err := Renew([]byte(bad), guest.Info{Name: "n", UUID: id}, Now{}); err == nil {
			t.Errorf("%s became %s", bad, got)
		}
	}
}

// Of a configuration from when the domain was made only that changes which is known to be otherwise now.
func TestRenew(t *testing.T) {
	id := uuid.New()
	d := guest.Info{Name: "h", UUID: id, Kind: guest.HVM}
	wrap := func(kind, name, id, number, build, devices string) string {
		return fmt.Sprintf("{\n \"c_info\": {\"type\": %q, \"name\": %q%s, \"uuid\": %q},\n \"b_info\": {%s}%s,\n \"x\": [1]\n}\n", kind, name, number, id, build, devices)
	}
	const fourDisks = `,
 "disks": [{"vdev": "hda", "pdev_path": "a<b"}, {"pdev_path": "/b", "vdev": "xvdb"}], "nics": [{"devid": 0}, {"devid": 1, "mac": "m"}]`
	for name, c := range map[string]struct {
		kind, number, build, devices string // as they were
		now                          Now
		want, wantDevices            string
	}{
		"nothing known":    {"hvm", "", `"max_memkb": 9, "target_memkb": 8`, fourDisks, Now{}, `"max_memkb": 9, "target_memkb": 8`, fourDisks},
		"its number":       {"pvh", `, "domid": 4294967295`, `"max_vcpus": 2`, "", Now{}, `"max_vcpus": 2`, ""},
		"plugged in":       {"hvm", "", `"avail_vcpus": [ 0 ], "y": 1`, "", Now{VCPUs: []int{2, 0, 3, 1}}, `"avail_vcpus": [0,1,2,3], "y": 1`, ""},
		"no bitmap so far": {"hvm", "", `"y": 1`, "", Now{VCPUs: []int{0, 1}}, `"y": 1, "avail_vcpus":[0,1]`, ""},
		"nothing so far":   {"hvm", "", ` `, "", Now{VCPUs: []int{0}}, `"avail_vcpus":[0] `, ""},
		"memory": {"pv", "", `"max_memkb": 9, "target_memkb": 8, "video_memkb": 0`, "", Now{Memory: 7, MaxMemory: 10},
			`"max_memkb": 10, "target_memkb": 7, "video_memkb": 0`, ""},
		"memory and video": {"hvm", "", `"max_memkb": 9000, "target_memkb": 9000, "video_memkb": 40`, "", Now{Memory: 7000, MaxMemory: 9000},
			`"max_memkb": 9000, "target_memkb": 7040, "video_memkb": 40`, ""},
		"populated on demand": {"hvm", "", `"max_memkb": 9000, "target_memkb": 8000, "video_memkb": 40`, "", Now{Memory: 6936, MaxMemory: 9000},
			`"max_memkb": 9000, "target_memkb": 8000, "video_memkb": 40`, ""},
		"all there": {"hvm", "", "", fourDisks, Now{Devices: map[string][]string{"disks": {"xvdb", "hda", "hdc"}, "nics": {"1", "0"}}}, "", fourDisks},
		"some gone": {"hvm", "", "", fourDisks, Now{Devices: map[string][]string{"disks": {"hda"}, "nics": {"1"}}}, "",
			",\n \"disks\": [{\"vdev\":\"hda\",\"pdev_path\":\"a\\u003cb\"}], \"nics\": [{\"devid\":1,\"mac\":\"m\"}]"},
		"all gone":         {"hvm", "", "", fourDisks, Now{Devices: map[string][]string{"disks": nil, "nics": nil}}, "", ""},
		"never had a disk": {"hvm", "", "", "", Now{Devices: map[string][]string{"disks": {"xvdb"}}}, "", ""},
	} {
		old := wrap(c.kind, "g", uuid.NewString(), c.number, c.build, c.devices)
		want := wrap(c.kind, "h", id.String(), "", c.want, c.wantDevices)
		got, err := Renew([]byte(old), d, c.now)
		if err != nil || string(got) != want {
			t.Errorf("%s: %v\n%s want\n%s", name, err, got, want)
		}
	}
	for _, bad := range []string{`{"c_info": {"name": "g", "uuid": "00000000-0000-0000-0000-000000000000"}}`,
		`{"c_info": {"name": "g", "uuid": "00000000-0000-0000-0000-000000000000"}, "b_info": {}, "disks": 7}`,
		`{"c_info": {"name": "g", "uuid": "00000000-0000-0000-0000-000000000000"}, "b_info": {}, "disks": [7]}`} {
		now := Now{VCPUs: []int{0}, Devices: map[string][]string{"disks": {"xvda"}}}
		if got, err := Renew([]byte(bad), d, now); err == nil {
			t.Errorf("%s became %s", bad, got)
		}
	}
}

// Editing text does to it what editing the value does, wherever a member is.
func TestMembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c", `d"`, "é"}
		want := map[string]any{}
		var text strings.Builder
		space := rapid.SampledFrom([]string{"", " ", "\n\t"})
		var body []string
		for _, n := range rapid.Permutation(names).Draw(t, "order")[:rapid.IntRange(0, 5).Draw(t, "members")] {
			key, _ := json.Marshal(n)
			value := rapid.SampledFrom([]string{`1`, `"}"`, `[{"a": 2}]`, `{"b": "]"}`, `null`}).Draw(t, "value")
			body = append(body, space.Draw(t, "s")+string(key)+space.Draw(t, "s")+":"+space.Draw(t, "s")+value+space.Draw(t, "s"))
			var v any
			if err := json.Unmarshal([]byte(value), &v); err != nil {
				t.Fatal(err)
			}
			want[n] = v
		}
		text.WriteString(`{"o":` + space.Draw(t, "s") + `{` + strings.Join(body, ",") + space.Draw(t, "s") + `}}`)
		name := rapid.SampledFrom(names).Draw(t, "name")
		_, had := want[name]
		same := func(what string, b []byte, err error) {
			var got struct{ O map[string]any }
			if err == nil {
				err = json.Unmarshal(b, &got)
			}
			if err != nil || !reflect.DeepEqual(got.O, want) {
				t.Fatalf("%s %s %q: %v\n%s\nwant %v", what, &text, name, err, b, want)
			}
		}
		if b, err := setMember([]byte(text.String()), "v", "o", name); had == (err != nil) || !had && !errors.Is(err, errNoMember) {
			t.Fatalf("set %s %q: %v, %s", &text, name, err, b)
		}
		want[name] = "v"
		b, err := putMember([]byte(text.String()), "v", "o", name)
		same("put", b, err)
		delete(want, name)
		b, err = dropMember([]byte(text.String()), "o", name)
		same("drop", b, err)
	})
}

// nodes are a xenstore.
type nodes map[string]string

func (n nodes) Read(_ context.Context, path string) (string, error) {
	if v, ok := n[path]; ok {
		return v, nil
	}
	return "", fmt.Errorf("read %s: %w", path, fs.ErrNotExist)
}

func (n nodes) Directory(_ context.Context, path string) (names []string, err error) {
	for p := range n {
		if below, ok := strings.CutPrefix(p, path+"/"); ok {
			name, _, _ := strings.Cut(below, "/")
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fs.ErrNotExist
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// What libxl has in xenstore of a domain is found there; the emulator's vCPUs are asked of it.
func TestNow(t *testing.T) {
	d := guest.Info{ID: 7, MaxVCPU: 3}
	s := nodes{
		"/local/domain/7/cpu/0/availability": "online", "/local/domain/7/cpu/1/availability": "offline",
		"/local/domain/7/cpu/2/availability": "online", "/local/domain/7/cpu/4/availability": "online",
		"/local/domain/7/memory/target": "8192", "/local/domain/7/memory/static-max": "16384", "/local/domain/7/memory/videoram": "-1",
		"/libxl/7/device/vbd/51712/dev": "xvda", "/libxl/7/device/vbd/51712/backend": "/b", "/libxl/7/device/vbd/768/dev": "hda",
		"/libxl/7/device/vif/1/mac": "m", "/libxl/17/device/vif/2/mac": "m",
	}
	want := Now{VCPUs: []int{0, 2}, Memory: 8192, MaxMemory: 16384, Devices: map[string][]string{"disks": {"xvda", "hda"}, "nics": {"1"}}}
	if now, err := nowIn(t.Context(), s, d, nil); err != nil || !reflect.DeepEqual(now, want) {
		t.Errorf("%+v, %v\nwant %+v", now, err, want)
	}
	want.VCPUs = []int{0, 1, 2, 3}
	cpus := func(context.Context) ([]int, error) { return want.VCPUs, nil }
	if now, err := nowIn(t.Context(), s, d, cpus); err != nil || !reflect.DeepEqual(now, want) {
		t.Errorf("with an emulator: %+v, %v\nwant %+v", now, err, want)
	}
	broken := errors.New("broken")
	if _, err := nowIn(t.Context(), s, d, func(context.Context) ([]int, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	s["/local/domain/7/memory/target"] = "much"
	if now, err := nowIn(t.Context(), s, d, nil); err == nil {
		t.Errorf("%+v", now)
	}
	none := Now{Devices: map[string][]string{"disks": nil, "nics": nil}}
	if now, err := nowIn(t.Context(), nodes{}, d, nil); err != nil || !reflect.DeepEqual(now, none) {
		t.Errorf("%+v, %v", now, err)
	}
}
