package guard

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/uuid"
)

// TestMain is also the guardian that a test starts: what it has to undo goes into the file that its host names.
func TestMain(m *testing.M) {
	if !IsGuardian(os.Args) {
		os.Exit(m.Run())
	}
	err := Watch(context.Background(), func(_ context.Context, s State) error {
		b, err := json.Marshal(s)
		if err != nil {
			return err
		}
		return os.WriteFile(os.Args[2], b, 0o600)
	})
	if err != nil {
		panic(err)
	}
}

// TestClose: a worker that returns leaves nothing to undo; of one that panics the last word is done, and the panic goes on.
func TestClose(t *testing.T) {
	told := State{Domain: 7, UUID: uuid.New(), Resume: true}
	for _, row := range []struct {
		name string
		work func()
		want State
	}{
		{"returns", func() {}, State{}},
		{"panics", func() { panic("a fault") }, told},
	} {
		t.Run(row.name, func(t *testing.T) {
			undone := filepath.Join(t.TempDir(), "undone")
			g, err := Start(undone)
			if err != nil {
				t.Fatal(err)
			}
			var passed any
			func() {
				defer func() { passed = recover() }()
				defer func() { g.Close(recover()) }()
				if err := g.Tell(told); err != nil {
					t.Error(err)
				}
				row.work()
			}()
			b, err := os.ReadFile(undone)
			if err != nil {
				t.Fatal(err)
			}
			var got State
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, row.want) || (passed != nil) != row.want.Resume {
				t.Errorf("the guardian was left with %s, and %v came through", b, passed)
			}
		})
	}
}
