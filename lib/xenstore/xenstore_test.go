package xenstore

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNodes(t *testing.T) {
	ctx, c := t.Context(), newDaemon().dial(t)
	_, err := c.Read(ctx, "/a")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "read /a") {
		t.Errorf("read what is not there: %v", err)
	}
	ok(t, c.Write(ctx, "/a", "x\x00y")) // a value may hold anything
	ok(t, c.Write(ctx, "/a/b", ""))
	ok(t, c.Mkdir(ctx, "/a/c"))
	if v, err := c.Read(ctx, "/a"); err != nil || v != "x\x00y" {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := c.Read(ctx, "/a/b"); err != nil || v != "" {
		t.Errorf("%q, %v", v, err)
	}
	if names, err := c.Directory(ctx, "/a"); err != nil || !slices.Equal(names, []string{"b", "c"}) {
		t.Errorf("%q, %v", names, err)
	}
	if names, err := c.Directory(ctx, "/a/b"); err != nil || len(names) != 0 {
		t.Errorf("%q, %v", names, err)
	}
	perms := []string{"n0", "r7"}
	ok(t, c.SetPerms(ctx, "/a", perms))
	if got, err := c.Perms(ctx, "/a"); err != nil || !slices.Equal(got, perms) {
		t.Errorf("%q, %v", got, err)
	}
	ok(t, c.Remove(ctx, "/a"))
	if _, err := c.Read(ctx, "/a/b"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("read below what was removed: %v", err)
	}
	if err := c.Write(ctx, "/big", strings.Repeat("x", maxBody)); err == nil {
		t.Error("a value that does not fit into a message was sent")
	}
}

func TestDomains(t *testing.T) {
	d := newDaemon()
	ctx, c := t.Context(), d.dial(t)
	if in, err := c.Introduced(ctx, 7); err != nil || in {
		t.Errorf("%v, %v", in, err)
	}
	if err := c.Resume(ctx, 7); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("resume a domain that nobody introduced: %v", err)
	}
	ok(t, c.Introduce(ctx, 7, 0xFEFFC, 3))
	if got := d.perms["introduce 7"]; got != "1044476\x003\x00" {
		t.Errorf("introduced with %q", got)
	}
	ok(t, c.Resume(ctx, 7))
	if in, err := c.Introduced(ctx, 7); err != nil || !in {
		t.Errorf("%v, %v", in, err)
	}
	if path, err := c.DomainPath(ctx, 7); err != nil || path != "/local/domain/7" {
		t.Errorf("%q, %v", path, err)
	}
	ok(t, c.Release(ctx, 7))
}

func TestTransaction(t *testing.T) {
	d := newDaemon()
	ctx, c := t.Context(), d.dial(t)
	d.set("/n", "1")
	tries := 0
	ok(t, c.Transaction(ctx, func(tx *Tx) error {
		v, err := tx.Read(ctx, "/n")
		if err != nil {
			return err
		}
		if tries++; tries == 1 {
			d.set("/n", "5") // another gets in between
		}
		n, _ := strconv.Atoi(v)
		return tx.Write(ctx, "/n", strconv.Itoa(n+1))
	}))
	if v, _ := c.Read(ctx, "/n"); v != "6" || tries != 2 {
		t.Errorf("%q after %d tries", v, tries)
	}
	fail := errors.New("no")
	err := c.Transaction(ctx, func(tx *Tx) error {
		ok(t, tx.Write(ctx, "/n", "lost"))
		if v, _ := tx.Read(ctx, "/n"); v != "lost" {
			t.Errorf("a transaction reads %q, not what it wrote", v)
		}
		return fail
	})
	if v, _ := c.Read(ctx, "/n"); !errors.Is(err, fail) || v != "6" {
		t.Errorf("%v, and the value is %q", err, v)
	}
}

func TestWatch(t *testing.T) {
	d := newDaemon()
	ctx, c := t.Context(), d.dial(t)
	w, err := c.Watch(ctx, "/dir")
	ok(t, err)
	if p := <-w.Events(); p != "/dir" {
		t.Errorf("the first event is of %q", p)
	}
	d.set("/dir/x", "1")
	if p := <-w.Events(); p != "/dir/x" {
		t.Errorf("the event is of %q", p)
	}
	d.set("/elsewhere", "1")
	for range 100 { // nobody receives: they become one, and the connection goes on
		d.set("/dir/x", "2")
	}
	_, err = c.Read(ctx, "/dir/x")
	ok(t, err)
	if p := <-w.Events(); p != "/dir/x" {
		t.Errorf("the event is of %q", p)
	}
	w.Close()
	d.set("/dir/x", "3")
	_, err = c.Read(ctx, "/dir/x")
	ok(t, err)
	select {
	case p := <-w.Events():
		t.Errorf("an event of %q after Close", p)
	default:
	}
}

// TestConcurrent mixes the requests of many on one connection.
func TestConcurrent(t *testing.T) {
	ctx, c := t.Context(), newDaemon().dial(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			path, value := "/"+strconv.Itoa(i), strconv.Itoa(i*i)
			if err := c.Write(ctx, path, value); err != nil {
				t.Error(err)
			}
			if v, err := c.Read(ctx, path); err != nil || v != value {
				t.Errorf("%s holds %q, %v", path, v, err)
			}
		})
	}
	wg.Wait()
}

func TestEnds(t *testing.T) {
	ours, theirs := net.Pipe()
	c := New(ours)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	go func() {
		_, _ = readMessage(theirs) // and never answer
		cancel(enough)
		_, _ = readMessage(theirs)
		theirs.Close()
	}()
	if _, err := c.Read(ctx, "/x"); !errors.Is(err, enough) {
		t.Errorf("a request whose context ends: %v", err)
	}
	if _, err := c.Read(t.Context(), "/x"); !errors.Is(err, ErrClosed) {
		t.Errorf("a request when xenstored goes away: %v", err)
	}
	if _, err := c.Read(t.Context(), "/x"); !errors.Is(err, ErrClosed) {
		t.Errorf("a request after xenstored went away: %v", err)
	}
	c.Close()
}

func TestDial(t *testing.T) {
	oldSockets, oldDevices := sockets, devices
	defer func() { sockets, devices = oldSockets, oldDevices }()
	path := t.TempDir() + "/socket"
	sockets, devices = []string{path}, []string{t.TempDir() + "/xenbus"}
	if _, err := Dial(t.Context()); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "xenbus") {
		t.Errorf("without a xenstored: %v", err)
	}
	l, err := net.Listen("unix", path)
	ok(t, err)
	defer l.Close()
	c, err := Dial(t.Context())
	ok(t, err)
	ok(t, c.Close())
}

func FuzzMessage(f *testing.F) {
	f.Add(message{op: opRead, request: 1, tx: 2, body: "/a\x00"}.append(nil))
	f.Add(message{op: opError, body: "ENOENT\x00"}.append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := readMessage(strings.NewReader(string(in)))
		if err == nil && string(m.append(nil)) != string(in[:headLen+len(m.body)]) {
			t.Errorf("% x is written back as % x", in, m.append(nil))
		}
	})
}
