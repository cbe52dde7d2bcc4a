package sim

import (
	"encoding/json"
	"fmt"

	"xenferry/lib/guest"
	"xenferry/lib/sim/machine"
)

// domainOps is the lives of domains.
var domainOps = map[op]func(s *Server, h header, body []byte, a *answer) error{
	opInfo: func(s *Server, h header, _ []byte, a *answer) error {
		i, err := s.m.Info(h.domain)
		return a.json(i, err)
	},
	opDomains: func(s *Server, _ header, _ []byte, a *answer) error { return a.json(s.m.Domains(), nil) },
	opCreate: func(s *Server, _ header, body []byte, a *answer) error {
		var spec guest.Spec
		if err := json.Unmarshal(body, &spec); err != nil {
			return fmt.Errorf("create a domain: %w", err)
		}
		id, err := s.Create(spec)
		a.a = uint64(id)
		return err
	},
	opDestroy: func(s *Server, h header, _ []byte, _ *answer) error { return s.Destroy(h.domain) },
	opPause:   func(s *Server, h header, _ []byte, _ *answer) error { return s.Pause(h.domain) },
	opUnpause: func(s *Server, h header, _ []byte, _ *answer) error { return s.Unpause(h.domain) },
	opRename:  func(s *Server, h header, body []byte, _ *answer) error { return s.m.Rename(h.domain, string(body)) },
	opResume:  func(s *Server, h header, _ []byte, _ *answer) error { return s.Resume(h.domain) },
	opShutdown: func(s *Server, h header, _ []byte, _ *answer) error {
		return s.Shutdown(h.domain, guest.ShutdownReason(h.a))
	},
}

// frameOps is batches of frames.
var frameOps = map[op]func(s *Server, ses *session, h header, body []byte, a *answer) error{
	opPageTypes: func(s *Server, _ *session, h header, body []byte, a *answer) error {
		gfns, err := words[guest.GFN](body)
		if err != nil {
			return err
		}
		types := make([]guest.PageType, len(gfns))
		a.body = typeOctets(types)
		return s.m.PageTypes(h.domain, gfns, types)
	},
	opMap: (*Server).mapFrames,
	opUnmap: func(s *Server, ses *session, h header, _ []byte, _ *answer) error {
		s.mu.Lock()
		_, mine := ses.holds[h.a]
		delete(ses.holds, h.a)
		s.mu.Unlock()
		if !mine || !s.m.Unmap(h.a) {
			return fmt.Errorf("unmap: there is no mapping %d", h.a)
		}
		return nil
	},
	opPopulate: func(s *Server, _ *session, h header, body []byte, a *answer) error {
		gfns, err := words[guest.GFN](body)
		a.body = body
		if err != nil {
			return err
		}
		return s.m.Populate(h.domain, gfns)
	},
	opDepopulate: func(s *Server, _ *session, h header, body []byte, _ *answer) error {
		gfns, err := words[guest.GFN](body)
		if err != nil {
			return err
		}
		return s.m.Depopulate(h.domain, gfns)
	},
	opSetLogDirty: func(s *Server, _ *session, h header, _ []byte, _ *answer) error {
		return s.m.SetLogDirty(h.domain, h.a != 0)
	},
	opDirty: func(s *Server, _ *session, h header, _ []byte, a *answer) error {
		if h.a > maxBody*8-64 {
			return fmt.Errorf("read dirty log of domain %d: %d frames are too many", h.domain, h.a)
		}
		b := guest.NewBitmap(h.a)
		n, err := s.m.Dirty(h.domain, h.a, b, h.b&dirtyClean != 0, h.b&dirtyFinal != 0)
		a.a, a.body = n, octets(b)
		return err
	},
	opPin: func(s *Server, _ *session, h header, body []byte, _ *answer) error {
		w, err := words[uint64](body)
		if err != nil || len(w)%2 != 0 {
			return fmt.Errorf("pin tables of domain %d: %d octets are no list of tables", h.domain, len(body))
		}
		ops := make([]guest.PinOp, len(w)/2)
		for i := range ops {
			ops[i] = guest.PinOp{MFN: guest.MFN(w[2*i]), Level: int(w[2*i+1])}
		}
		return s.m.Pin(h.domain, ops)
	},
}

func (s *Server) mapFrames(ses *session, h header, body []byte, a *answer) error {
	gfns, err := words[guest.GFN](body)
	if err != nil {
		return err
	}
	if h.a > uint64(guest.ReadWrite) {
		return fmt.Errorf("map frames of domain %d: there is no protection %d", h.domain, h.a)
	}
	mfns := make([]guest.MFN, len(gfns))
	hold, errs, err := s.m.Map(h.domain, gfns, mfns, guest.Prot(h.a))
	if err != nil {
		return err
	}
	if hold != 0 {
		s.mu.Lock()
		ses.holds[hold] = struct{}{}
		s.mu.Unlock()
	}
	a.a, a.body = hold, octets(mfns)
	if errs == nil {
		return nil
	}
	var refused []frameRefusal
	for i, err := range errs {
		if err != nil {
			errno, why := machine.Reason(err)
			refused = append(refused, frameRefusal{i, errno, why})
		}
	}
	j, err := json.Marshal(refused)
	a.body = append(a.body, j...)
	return err
}

// stateOps is the state of domains beside their memory.
var stateOps = map[op]func(m *machine.Machine, h header, body []byte, a *answer) error{
	opMaxGFN: func(m *machine.Machine, h header, _ []byte, a *answer) (err error) {
		g, err := m.MaxGFN(h.domain)
		a.a = uint64(g)
		return err
	},
	opAddressSize: func(m *machine.Machine, h header, _ []byte, a *answer) error {
		n, err := m.AddressSize(h.domain)
		a.a = uint64(n)
		return err
	},
	opSetAddressSize: func(m *machine.Machine, h header, _ []byte, _ *answer) error {
		return m.SetAddressSize(h.domain, int(h.a))
	},
	opVCPUOnline: func(m *machine.Machine, h header, _ []byte, a *answer) error {
		on, err := m.VCPUOnline(h.domain, uint32(h.a))
		if on {
			a.a = 1
		}
		return err
	},
	opVCPUContext:     blob((*machine.Machine).VCPUContext),
	opSetVCPUContext:  setBlob((*machine.Machine).SetVCPUContext),
	opVCPUExtended:    blob((*machine.Machine).VCPUExtended),
	opSetVCPUExtended: setBlob((*machine.Machine).SetVCPUExtended),
	opVCPUXSave:       blob((*machine.Machine).VCPUXSave),
	opSetVCPUXSave:    setBlob((*machine.Machine).SetVCPUXSave),
	opVCPUMSRs: func(m *machine.Machine, h header, _ []byte, a *answer) error {
		msrs, err := m.VCPUMSRs(h.domain, uint32(h.a))
		return a.json(msrs, err)
	},
	opSetVCPUMSRs: func(m *machine.Machine, h header, body []byte, _ *answer) error {
		var msrs []guest.MSR
		if err := json.Unmarshal(body, &msrs); err != nil {
			return err
		}
		return m.SetVCPUMSRs(h.domain, uint32(h.a), msrs)
	},
	opHVMContext: func(m *machine.Machine, h header, _ []byte, a *answer) (err error) {
		a.body, err = m.HVMContext(h.domain)
		return err
	},
	opSetHVMContext: func(m *machine.Machine, h header, body []byte, _ *answer) error {
		return m.SetHVMContext(h.domain, body)
	},
	opHVMParam: func(m *machine.Machine, h header, _ []byte, a *answer) (err error) {
		a.a, err = m.HVMParam(h.domain, uint32(h.a))
		return err
	},
	opSetHVMParam: func(m *machine.Machine, h header, _ []byte, _ *answer) error {
		return m.SetHVMParam(h.domain, uint32(h.a), h.b)
	},
	opTSC: func(m *machine.Machine, h header, _ []byte, a *answer) error {
		t, err := m.TSC(h.domain)
		return a.json(t, err)
	},
	opSetTSC: func(m *machine.Machine, h header, body []byte, _ *answer) error {
		var t guest.TSC
		if err := json.Unmarshal(body, &t); err != nil {
			return err
		}
		return m.SetTSC(h.domain, t)
	},
	opCPUPolicy: func(m *machine.Machine, h header, _ []byte, a *answer) error {
		p, err := m.CPUPolicy(h.domain)
		return a.json(p, err)
	},
	opSetCPUPolicy: func(m *machine.Machine, h header, body []byte, _ *answer) error {
		var p guest.CPUPolicy
		if err := json.Unmarshal(body, &p); err != nil {
			return err
		}
		return m.SetCPUPolicy(h.domain, p)
	},
	opSeedGrants: func(m *machine.Machine, h header, _ []byte, _ *answer) error {
		return m.SeedGrants(h.domain, guest.GFN(h.a), guest.GFN(h.b))
	},
	opGrants: func(m *machine.Machine, h header, _ []byte, a *answer) error {
		console, store, err := m.Grants(h.domain)
		a.a, a.b = uint64(console), uint64(store)
		return err
	},
}

func blob(get func(*machine.Machine, guest.DomID, uint32) ([]byte, error)) func(*machine.Machine, header, []byte, *answer) error {
	return func(m *machine.Machine, h header, _ []byte, a *answer) (err error) {
		a.body, err = get(m, h.domain, uint32(h.a))
		return err
	}
}

func setBlob(set func(*machine.Machine, guest.DomID, uint32, []byte) error) func(*machine.Machine, header, []byte, *answer) error {
	return func(m *machine.Machine, h header, body []byte, _ *answer) error {
		return set(m, h.domain, uint32(h.a), body)
	}
}
