package migrate

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"xenferry/lib/guest"
)

// What a domain is made of survives its configuration; PV domains are of 64 bits until their stream tells.
func TestConfig(t *testing.T) {
	for _, kind := range []guest.Kind{guest.PV64, guest.PV32, guest.HVM, guest.PVH} {
		d := guest.Info{Name: "g", UUID: uuid.New(), Kind: kind, MaxVCPU: 3, MaxPages: 4096}
		b, err := Config(d)
		if err != nil {
			t.Fatal(err)
		}
		if kind == guest.PV32 {
			kind = guest.PV64
		}
		want := guest.Spec{Name: "g", UUID: d.UUID, Kind: kind, VCPUs: 4, MaxPages: 4096}
		if got, err := SpecOf(b); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"c_info": {"type": "hvm"}}`, `{"c_info": {"type": "vm"}, "b_info": {"max_vcpus": 1, "max_memkb": 1}}`,
		`{"c_info": {"type": "pv", "uuid": "x"}, "b_info": {"max_vcpus": 1, "max_memkb": 1}}`,
		`{"c_info": {"type": "pv"}, "b_info": {"max_vcpus": 1, "max_memkb": 18446744073709551615}}`} {
		if s, err := SpecOf([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, s)
		}
	}
}

// What a toolstack makes is not left out unsaid.
func TestWithoutDevices(t *testing.T) {
	rest := `"c_info": {"type": "%s"}, "b_info": {"max_vcpus": 1, "max_memkb": 8192}`
	for text, ok := range map[string]bool{
		`{` + fmt.Sprintf(rest, "pvh") + `}`:                                 true,
		`{` + fmt.Sprintf(rest, "pv") + `, "disks": []}`:                     true,
		`{` + fmt.Sprintf(rest, "pv") + `, "disks": [{"vdev": "xvda"}]}`:     false,
		`{` + fmt.Sprintf(rest, "pvh") + `, "nics": [{"bridge": "xenbr0"}]}`: false,
		`{` + fmt.Sprintf(rest, "hvm") + `}`:                                 false,
	} {
		if err := withoutDevices([]byte(text)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
