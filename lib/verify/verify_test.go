package verify

import (
	"bytes"
	"testing"

	"xenferry/lib/record"
	"xenferry/lib/testkit"
)

// failure is what a report says is wrong, as the error it was.
func failure(r *Report) error {
	if r.Error == nil {
		return nil
	}
	return r.Error.Err()
}

// TestVectors: pedantic verification ends as strict reading does; otherwise what restore would not see is a warning.
func TestVectors(t *testing.T) {
	// A stream with checkpoints needs the libxl records behind each: as a bare libxc stream it is refused at the first.
	bare := map[string]bool{"checkpoint": true, "checkpoint-optional": true, "checkpoint-incomplete": true}
	vectors, err := testkit.Vectors(testkit.LibXC)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			report, err := Verify(bytes.NewReader(v.Data), Options{Layer: LibXC, Pedantic: true})
			if err != nil {
				t.Fatal(err)
			}
			if bare[v.Name] {
				if report.Valid {
					t.Fatal("a bare libxc stream with checkpoints is valid")
				}
				return
			}
			if err := v.Strict.Check(failure(report)); err != nil {
				t.Error(err)
			}
			report, _ = Verify(bytes.NewReader(v.Data), Options{Layer: LibXC})
			switch tolerable := v.Strict.Kind != nil && record.IsTolerable(v.Strict.Kind); {
			case report.Valid != (v.Strict.Kind == nil || tolerable):
				t.Errorf("not pedantic: %v", failure(report))
			case tolerable && report.Warnings.Count == 0:
				t.Error("not pedantic: no warning")
			}
		})
	}
}
