package helper

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestBytes: the frames as Xen's libxl_save_msgs_gen.pl of 4.14 and later has them.
func TestBytes(t *testing.T) {
	call := &Call{Numbering: Numbering414, Callbacks: ^uint64(0)}
	for _, tt := range []struct {
		name, want string
		send       func(*Conn)
	}{
		{"progress", "240002000300000078630007000000" + "4672616d65730001000000000000000200000000000000", func(c *Conn) { c.Progress("Frames", 1, 2) }},
		{"suspend", "02000300", func(c *Conn) { _ = c.Suspend(context.Background()) }},
		{"postcopy", "02000400", func(c *Conn) { _, _ = c.Postcopy(context.Background()) }},
		{"checkpoint", "02000500", func(c *Conn) { _, _ = c.Checkpoint(context.Background()) }},
		{"switch_qemu_logdirty", "0a0007000700000001000000", func(c *Conn) { _ = c.SwitchQEMULogDirty(context.Background(), 7, true) }},
		{"static_data_done", "0600080003000000", func(c *Conn) { _ = c.StaticDataDone(context.Background(), 3) }},
		{"restore_results", "12000900fcef0f0000000000ffef0f0000000000", func(c *Conn) { _ = c.RestoreResults(0xfeffc, 0xfefff) }},
		{"complete", "0a000a00ffffffff05000000", func(c *Conn) { _ = c.Complete(context.Background(), -1, 5) }},
	} {
		var out bytes.Buffer
		tt.send(NewConn(call, strings.NewReader(""), &out)) // libxl is gone, and does not answer
		if got := hex.EncodeToString(out.Bytes()); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestCalls: every shape of command line, what is known of it, and what is refused.
func TestCalls(t *testing.T) {
	for _, tt := range []struct {
		line    string
		release string
		version uint32
		domain  int
		stream  StreamType
		suse    bool
	}{
		{"--save-domain 14 11 3 0 136 0", "4.14 or later", 3, 3, Plain, false},
		{"--save-domain 14 11 3 1 184 1", "4.14 or later", 3, 3, Remus, false},
		{"--save-domain 14 11 3 0 280 0", "4.14 or later", 3, 3, Plain, true},
		{"--save-domain 14 3 0 0 5 1 72", "4.6", 2, 3, Plain, false},
		{"--save-domain 14 3 0 0 36 1 120", "4.6", 2, 3, Remus, false},
		{"--save-domain 14 11 3 5 1 136 0", "4.10 to 4.13", 2, 3, Plain, false},
		{"--save-domain 14 11 3 0 0 5 1 136 0", "4.7 to 4.9", 2, 3, Plain, false},
		{"--save-domain 14 3 0 0 5 1 18446744073709551615 0 72", "4.5", 0, 0, 0, false},
		{"--save-domain 14 3 0 0 1 1 0 18446744073709551615 0 72", "4.2 to 4.4", 0, 0, 0, false},
		{"--restore-domain 12 -1 4 1 0 2 0 768 0", "4.14 or later", 3, 4, Plain, false},
		{"--restore-domain 12 -1 4 1 0 2 0 1536 0", "4.14 or later", 3, 4, Plain, true},
		{"--restore-domain 12 -1 4 1 0 2 0 0 0 0 256 0", "4.7 to 4.9", 2, 4, Plain, false},
		{"--restore-domain 12 -1 4 1 0 2 0 0 0 288 1", "4.10 to 4.13", 2, 4, Remus, false},
		{"--restore-domain 12 4 1 0 2 0 0 0 0 32 1", "4.6", 2, 4, Remus, false},
		{"--restore-domain 12 4 1 0 2 0 1 1 0 0 128 0", "4.4", 0, 0, 0, false},
		{"--restore-domain 12 4 1 0 2 0 1 1 0 128 0", "4.2, 4.3 or 4.5", 0, 0, 0, false},
	} {
		c, err := ParseCall(strings.Fields(tt.line))
		if tt.version == 0 {
			if err == nil || !strings.Contains(err.Error(), "Xen "+tt.release+",") || !strings.Contains(err.Error(), "legacy stream") {
				t.Errorf("%s: %+v, error %v; want a refusal naming Xen %s", tt.line, c, err, tt.release)
			}
			continue
		}
		if err != nil || c.Release != tt.release || c.Version != tt.version || int(c.Domain) != tt.domain ||
			c.StreamType != tt.stream || c.Numbering.shifted != tt.suse {
			t.Errorf("%s: %+v, error %v", tt.line, c, err)
		}
		if c != nil && c.Restore && (c.StorePort != 1 || c.ConsolePort != 2) {
			t.Errorf("%s: ports %d and %d", tt.line, c.StorePort, c.ConsolePort)
		}
	}
	for _, line := range []string{
		"", "--help", "--save-domain", "--save-domain 1 2 3", "--save-domain 14 11 3 0 x 0", "--save-domain 14 11 3 0 128 0",
		"--save-domain 14 11 40000 0 136 0", "--save-domain 14 11 3 0 136 3", "--restore-domain 12 -1 4 1 0 2 0 768",
	} {
		if c, err := ParseCall(strings.Fields(line)); err == nil {
			t.Errorf("%q: taken as %+v", line, c)
		}
	}
}

// TestXend: what xend called is refused in words of its own, and nothing else is taken for it.
func TestXend(t *testing.T) {
	for _, tt := range []struct{ line, says string }{
		{"5 3 0 0 1", "nobody writes"},
		{"26 3 0 0 5", "nobody writes"},
		{"4 2 1 2 1 1 1", "convert-legacy"},
		{"4 2 1 2 0 0 0 0", "convert-legacy"},
		{"4 2 1 2 0 0 0 0 1", "convert-legacy"},
		{"", ""}, {"5", ""}, {"5 3", ""}, {"5 3 0 0", ""}, {"5 3 0 0 1 0", ""}, {"4 2 1 2 0 0 0 0 1 0", ""},
		{"5 3 0 0 x", ""}, {"--live 3 0 0 1", ""}, {"5 3 0 0 -1", ""}, {"5 3 0 0 0x1", ""},
		{"--save-domain 14 11 3 0 136 0", ""}, {"--restore-domain 12 -1 4 1 0 2 0 768 0", ""},
	} {
		err := RefuseXend(strings.Fields(tt.line))
		if (err == nil) != (tt.says == "") || err != nil && !(strings.Contains(err.Error(), "xend") && strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%q: %v, want %q", tt.line, err, tt.says)
		}
	}
}

// TestMessages: what a helper of any release sends is what its libxl reads, whatever the texts hold.
func TestMessages(t *testing.T) {
	numberings := []Numbering{Numbering46, Numbering47, Numbering414, Numbering46.SUSE(), Numbering47.SUSE(), Numbering414.SUSE()}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom(numberings).Draw(t, "numbering")
		text := rapid.String().Draw(t, "text")
		if rapid.IntRange(0, 20).Draw(t, "long") == 0 {
			text = strings.Repeat(text+"x", 70_000)
		}
		var out bytes.Buffer
		c := NewConn(&Call{Numbering: n, Callbacks: ^uint64(0)}, strings.NewReader(""), &out)
		c.Log(Level(rapid.Uint32().Draw(t, "level")), text)
		c.Progress(text, 1, 2)
		_ = c.Suspend(t.Context())
		_ = c.SwitchQEMULogDirty(t.Context(), 5, false)
		_ = c.RestoreResults(1, 2)
		_ = c.Complete(t.Context(), -1, 9)
		for _, want := range []Kind{Log, Progress, Suspend, SwitchQEMULogDirty, RestoreResults, Complete} {
			m, err := ReadMessage(&out, n)
			if err != nil || m.Kind != want {
				t.Fatalf("%+v, error %v; want %v", m, err, want)
			}
			if want == Log && (m.Numbers[0] < 1 || m.Numbers[0] > 9 || strings.Contains(m.Texts[1], "\x00")) {
				t.Fatalf("%+v would abort the toolstack", m)
			}
		}
	})
}

// TestReplies: an answer belongs to its question; one that is late makes the connection useless; EOF ends every wait.
func TestReplies(t *testing.T) {
	call := &Call{Numbering: Numbering414, Callbacks: 136}
	in, libxl := io.Pipe()
	c := NewConn(call, in, io.Discard)
	for _, answer := range []int32{1, 0} {
		go func() { _ = Reply(libxl, answer) }()
		if err := c.Suspend(t.Context()); (err == nil) != (answer == 1) {
			t.Errorf("answer %d: %v", answer, err)
		}
	}
	if _, err := c.Checkpoint(t.Context()); err == nil {
		t.Error("a message that crashes libxl was sent")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Suspend(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the operation: %v", err)
	}
	_ = libxl.Close()
	if err := c.Suspend(t.Context()); !errors.Is(err, ErrGone) {
		t.Errorf("after libxl's end: %v", err)
	}
}

func FuzzReadMessage(f *testing.F) {
	for _, s := range []string{"02000300", "0a000a00ffffffff05000000", "2400020003000000786300070000004672616d65730001000000000000000200000000000000"} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ReadMessage(bytes.NewReader(b), Numbering414); err == nil && m.Kind == 0 {
			t.Errorf("% x is taken as nothing", b)
		}
	})
}
