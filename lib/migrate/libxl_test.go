package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"
	"github.com/rs/zerolog"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/testkit"
	"xenferry/lib/xlstream"
)

// What libyajl 2.1.0 and json-c 0.16 print of one configuration by itself, and in a list as xl makes it, where it has the number too.
var listings = map[string]struct{ alone, listed string }{
	"yajl": {
		"{\n    \"c_info\": {\n        \"type\": \"hvm\",\n        \"name\": \"a\\n b\",\n        \"uuid\": \"%v\"\n    },\n    \"b_info\": {\n" +
			"        \"avail_vcpus\": [\n            0,\n            1\n        ],\n        \"vnc\": {\n\n        },\n        \"e\": [\n\n        ]\n    }\n}\n",
		"[\n    {\n        \"domid\": 5,\n        \"config\": {\n            \"c_info\": {\n                \"type\": \"hvm\",\n" +
			"                \"name\": \"a\\n b\",\n                \"domid\": 4294967295,\n                \"uuid\": \"%v\"\n            },\n" +
			"            \"b_info\": {\n                \"avail_vcpus\": [\n                    0,\n                    1\n                ],\n" +
			"                \"vnc\": {\n\n                },\n                \"e\": [\n\n                ]\n            }\n        }\n    }\n]\n\n",
	},
	"json-c": {
		"{\n  \"c_info\":{\n    \"type\":\"hvm\",\n    \"name\":\"a\\n b\",\n    \"uuid\":\"%v\"\n  },\n  \"b_info\":{\n    \"avail_vcpus\":[\n      0,\n" +
			"      1\n    ],\n    \"vnc\":{\n    },\n    \"e\":[\n    ]\n  }\n}",
		"[\n  {\n    \"domid\":5,\n    \"config\":{\n      \"c_info\":{\n        \"type\":\"hvm\",\n        \"name\":\"a\\n b\",\n" +
			"        \"domid\":4294967295,\n        \"uuid\":\"%v\"\n      },\n      \"b_info\":{\n        \"avail_vcpus\":[\n          0,\n          1\n" +
			"        ],\n        \"vnc\":{\n        },\n        \"e\":[\n        ]\n      }\n    }\n  }\n]\n",
	},
}

// A configuration in a list becomes what libxl writes of it by itself, to the octet.
func TestListed(t *testing.T) {
	id := uuid.New()
	for name, l := range listings {
		want := fmt.Sprintf(l.alone, id)
		if got, err := listed(fmt.Appendf(nil, l.listed, id), id); err != nil || string(got) != want {
			t.Errorf("%s: %v\n%q, want\n%q", name, err, got, want)
		}
	}
	one := fmt.Sprintf(`{"domid": 5, "config": {"c_info": {"uuid": %q}}}`, id)
	if got, err := listed([]byte("["+one+"]"), id); err != nil || string(got) != fmt.Sprintf(`{"c_info": {"uuid": %q}}`, id) {
		t.Errorf("without newlines: %v, %s", err, got)
	}
	for _, bad := range []string{"", "[]\n\n", "[\n]\n", "(domain\n    (domid 5)\n", "[" + one + "," + one + "]", `[{"domid": 5}]`, `[{"config": null}]`,
		`[{"config": []}]`, strings.Replace("["+one+"]", id.String(), uuid.NewString(), 1)} {
		if got, err := listed([]byte(bad), id); err == nil {
			t.Errorf("%q is %q", bad, got)
		}
	}
}

// The configurations that stock xl wrote come out of a list of them as they are in its images.
func TestListedCaptures(t *testing.T) {
	for _, name := range testkit.Captures {
		file, err := os.Open(testkit.Capture(t, name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		stream, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		h, err := xlstream.ReadXLHeader(record.NewReader(stream, record.Strict, 0, 0, nil))
		if err != nil {
			t.Fatal(err)
		}
		var c config
		if err := json.Unmarshal(h.Config, &c); err != nil {
			t.Fatal(err)
		}
		deeper := strings.ReplaceAll(strings.TrimSpace(string(h.Config)), "\n", "\n        ")
		deeper = strings.ReplaceAll(deeper, "\n        \n", "\n\n") // libyajl leaves empty lines empty
		deeper = strings.Replace(deeper, `"uuid"`, "\"domid\": 4294967295,\n                \"uuid\"", 1)
		list := "[\n    {\n        \"domid\": 5,\n        \"config\": " + deeper + "\n    }\n]\n\n"
		if got, err := listed([]byte(list), c.Create.UUID); err != nil || !bytes.Equal(got, h.Config) {
			t.Errorf("%s: %v\n%s, want\n%s", name, err, got, h.Config)
		}
	}
}

// script is a program that does what a shell's text says.
func script(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "xl")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o700); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	return name
}

// xl is believed. Where it is not there or has no answer, the file from when the domain was made is renewed, and the log says so.
// Where nobody knows what the emulator has, nothing is saved that could not be restored.
func TestLibxlConfig(t *testing.T) {
	d := guest.Info{ID: 5, UUID: uuid.New(), Name: "a\n b", Kind: guest.HVM, MaxVCPU: 3}
	made := fmt.Sprintf(listings["yajl"].alone, d.UUID)
	renewed := strings.Replace(made, "[\n            0,\n            1\n        ]", "[0,1,2,3]", 1)
	list := fmt.Sprintf(listings["yajl"].listed, d.UUID)
	four := func(context.Context) (Now, error) { return Now{VCPUs: []int{0, 1, 2, 3}}, nil }
	silent := fmt.Errorf("the emulator is gone: %w", fs.ErrNotExist)
	mute := func(context.Context) (Now, error) { return Now{}, silent }
	listing := filepath.Join(t.TempDir(), "listing")
	if err := os.WriteFile(listing, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		xl   string
		now  func(context.Context) (Now, error)
		want string
		says string
	}{
		"xl":                {script(t, `[ "$*" = "list -l 5" ] && cat `+listing), mute, made, "by xl list -l"},
		"no xl":             {filepath.Join(t.TempDir(), "xl"), four, renewed, "no such file"},
		"xl fails":          {script(t, "echo Kaputt >&2; exit 1"), four, renewed, "Kaputt"},
		"xl knows nothing":  {script(t, "echo Fail to get domain name >&2; echo '[\n\n]\n'"), four, renewed, "0 domains: Fail to get domain name"},
		"xl is of xend":     {script(t, "echo '(domain'"), four, renewed, "xl.conf"},
		"nobody knows":      {script(t, "exit 1"), mute, "", "exit status 1"},
		"an emulator's own": {script(t, "exit 1"), four, renewed, "exit status 1"},
	} {
		var said bytes.Buffer
		l := libxl{t.TempDir(), c.xl, c.now, zerolog.New(&said)}
		if _, err := l.config(t.Context(), d); !errors.Is(err, ErrNoConfig) {
			t.Errorf("%s, and libxl has none: %v", name, err)
		}
		file := fmt.Sprintf("%s/userdata-d.5.%v.libxl-json", l.folder, d.UUID)
		if err := os.WriteFile(file, []byte(made+"\x00"), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := l.config(t.Context(), d)
		switch {
		case c.want == "":
			if !errors.Is(err, silent) || errors.Is(err, ErrNoConfig) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil || string(got) != c.want:
			t.Errorf("%s: %v\n%s, want\n%s", name, err, got, c.want)
		case !strings.Contains(said.String(), "configuration from "+file) || !strings.Contains(said.String(), c.says):
			t.Errorf("%s: says %s", name, &said)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(silent)
		if _, err := l.config(ctx, d); !errors.Is(err, silent) {
			t.Errorf("%s, interrupted: %v", name, err)
		}
	}
}
