package outfile

import (
	"os"
	"path/filepath"
	"testing"
)

// TestCommit: until a file is complete its place and its folder are as they were; then it is there, through links, and
// nothing else is. So too where it must have a name from the start.
func TestCommit(t *testing.T) {
	for _, named := range []bool{false, true} {
		dir := t.TempDir()
		at := func(name string) string { return filepath.Join(dir, name) }
		check := func(name, want string) {
			t.Helper()
			if b, err := os.ReadFile(at(name)); string(b) != want {
				t.Errorf("named %v: %s holds %q, not %q: %v", named, name, b, want, err)
			}
		}
		begin := func(name string) *File {
			t.Helper()
			f, err := Create(at(name), 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if named && f.beside == "" {
				if err := f.place(at(".named")); err != nil {
					t.Fatal(err)
				}
				f.beside = at(".named")
			}
			if _, err := f.WriteString("new"); err != nil {
				t.Fatal(err)
			}
			return f
		}
		if err := os.WriteFile(at("old"), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		for link, to := range map[string]string{"link": "old", "dangling": "fresh"} {
			if err := os.Symlink(to, at(link)); err != nil {
				t.Fatal(err)
			}
		}
		f := begin("link")
		f.Discard()
		check("old", "old")
		for link, to := range map[string]string{"link": "old", "dangling": "fresh"} {
			f := begin(link)
			if !f.Lasting() || f.Path() != at(to) {
				t.Errorf("%s: %q, lasting %v", link, f.Path(), f.Lasting())
			}
			if err := f.Commit(); err != nil {
				t.Fatal(err)
			}
			f.Discard()
			check(to, "new")
		}
		f = begin("old")
		if err := f.CommitTo(at("old.partial")); err != nil {
			t.Fatal(err)
		}
		check("old.partial", "new")
		all, err := os.ReadDir(dir)
		if err != nil || len(all) != 5 {
			t.Errorf("named %v: left %v, %v", named, all, err)
		}
	}
}

// TestDirect: what is no regular file is written as it is.
func TestDirect(t *testing.T) {
	f, err := Create("/dev/null", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Discard()
	if f.Lasting() || f.Commit() != nil {
		t.Error("/dev/null was replaced")
	}
}
