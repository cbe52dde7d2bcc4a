package sim

import (
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/sim/machine"
)

// FuzzRequest makes requests of any shape of a server with a PV and an HVM domain: it may refuse all, but lives.
func FuzzRequest(f *testing.F) {
	for o := opInfo; o <= opCall; o++ {
		f.Add(uint16(o), uint16(1), uint64(0), uint64(1), []byte("{}"))
		f.Add(uint16(o), uint16(2), uint64(1), uint64(1), make([]byte, 16))
	}
	s, err := New(Options{Options: machine.Options{Memory: 1 << 20, Log: machine.LogSoftware}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, o, domain uint16, a, b uint64, body []byte) {
		ses := &session{holds: map[uint64]struct{}{}}
		for _, k := range []guest.Kind{guest.PV64, guest.HVM} {
			id, err := s.Create(guest.Spec{Kind: k, VCPUs: 2, MaxPages: 8})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.m.Populate(id, []guest.GFN{0, 1, 2, 3}); err != nil {
				t.Fatal(err)
			}
		}
		aligned := octets(make([]uint64, len(body)/8+1))[:len(body)]
		copy(aligned, body)
		domains := s.m.Domains()
		h := header{op: op(o), domain: domains[int(domain)%len(domains)].ID, a: a, b: b}
		var ans answer
		if h.op == opSuspend || h.op == opCall {
			_ = s.slow(t.Context(), h, aligned, &ans)
		} else {
			_ = s.handle(ses, h, aligned, &ans)
		}
		for hold := range ses.holds {
			s.m.Unmap(hold)
		}
		for _, i := range s.m.Domains() {
			if err := s.Destroy(i.ID); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(s.m.Domains()); n != 0 {
			t.Fatalf("%d domains are left", n)
		}
	})
}
