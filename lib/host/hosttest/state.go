package hosttest

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

var le = binary.LittleEndian

func addressSize(s *suite) {
	hvm := s.create(guest.HVM, 1, 10)
	_, err := s.AddressSize(s.ctx, hvm)
	s.refused(err, nil, "address size of an HVM domain")

	id := s.create(guest.PV64, 1, 10)
	bits, err := s.AddressSize(s.ctx, id)
	if s.ok(err); bits != 64 {
		s.Errorf("a PV64 domain has %d bits", bits)
	}
	s.ok(s.SetAddressSize(s.ctx, id, 64))
	s.need(PV32)
	s.ok(s.SetAddressSize(s.ctx, id, 32))
	bits, err = s.AddressSize(s.ctx, id)
	if s.ok(err); bits != 32 || s.info(id).Kind != guest.PV32 {
		s.Errorf("set to 32 bits, a domain has %d and is %v", bits, s.info(id).Kind)
	}
	// shared_info may have moved; it can be mapped where it is told to be.
	s.write(id, []guest.GFN{guest.GFN(s.info(id).SharedInfo)}, func(int, []byte) {})

	late := s.create(guest.PV64, 1, 10)
	s.populate(late, 0, 1)
	s.refused(s.SetAddressSize(s.ctx, late, 32), unix.EACCES, "set the address size of a domain with pages")
}

func vcpuState(s *suite) {
	id := s.create(guest.PV64, 2, 10)
	_, err := s.VCPUContext(s.ctx, id, 0)
	s.refused(err, unix.ENODATA, "context of a vCPU that has none")
	_, err = s.VCPUOnline(s.ctx, id, 2)
	s.refused(err, nil, "vCPU 2 of 2")

	ext := make([]byte, 64)
	le.PutUint32(ext, 1)
	le.PutUint32(ext[4:], 64)
	le.PutUint64(ext[16:], 0xFFFFFFFF81001000)
	s.ok(s.SetVCPUExtended(s.ctx, id, 1, ext))
	got, err := s.VCPUExtended(s.ctx, id, 1)
	if s.ok(err); len(got) < 64 || !bytes.Equal(got[:24], ext[:24]) {
		s.Errorf("extended state comes back as % x", got)
	}
	s.refused(s.SetVCPUExtended(s.ctx, id, 1, ext[:20]), nil, "extended state cut off")

	xsave := make([]byte, 16+832)
	xsave[0], xsave[8], xsave[16] = 7, 7, 0x7F
	if s.has(Processor) {
		s.ok(s.SetVCPUXSave(s.ctx, id, 0, xsave))
		got, err = s.VCPUXSave(s.ctx, id, 0)
		if s.ok(err); !bytes.Equal(got, xsave) {
			s.Errorf("XSAVE state comes back as %d octets", len(got))
		}
	}
	s.refused(s.SetVCPUXSave(s.ctx, id, 0, xsave[:16+831]), nil, "an XSAVE image one octet short")
	s.refused(s.SetVCPUXSave(s.ctx, id, 0, xsave[:15]), nil, "XSAVE state without its head")

	msrs := []guest.MSR{{Index: 0xC0000103, Value: 5}}
	if s.has(Processor) {
		s.ok(s.SetVCPUMSRs(s.ctx, id, 1, msrs))
		back, err := s.VCPUMSRs(s.ctx, id, 1)
		if s.ok(err); !slices.Equal(back, msrs) {
			s.Errorf("MSRs come back as %+v", back)
		}
	}
	s.refused(s.SetVCPUMSRs(s.ctx, id, 1, []guest.MSR{{Index: 0x10}}), nil, "an MSR that is no vCPU's")
	s.refused(s.SetVCPUMSRs(s.ctx, id, 1, []guest.MSR{{Index: 0xC0000103, Flags: 1}}), nil, "an MSR with flags")
}

func hvmParams(s *suite) {
	id, pv := s.create(guest.HVM, 1, 10), s.create(guest.PV64, 1, 10)
	const store, ioreq, pae, past = 1, 5, 4, 39
	s.ok(s.SetHVMParam(s.ctx, id, store, 0xFEFFC))
	s.ok(s.SetHVMParam(s.ctx, id, store, 0xFEFFD))
	v, err := s.HVMParam(s.ctx, id, store)
	if s.ok(err); v != 0xFEFFD {
		s.Errorf("parameter comes back as %#x", v)
	}
	s.ok(s.SetHVMParam(s.ctx, id, ioreq, 3))
	s.ok(s.SetHVMParam(s.ctx, id, ioreq, 3))
	s.refused(s.SetHVMParam(s.ctx, id, ioreq, 4), unix.EEXIST, "a parameter that is set once")
	for _, gone := range []uint32{pae, past, 1 << 31} {
		_, err := s.HVMParam(s.ctx, id, gone)
		s.refused(err, unix.EINVAL, "get a parameter that is not there")
		s.refused(s.SetHVMParam(s.ctx, id, gone, 1), unix.EINVAL, "set a parameter that is not there")
	}
	s.refused(s.SetHVMParam(s.ctx, pv, store, 1), unix.EINVAL, "a parameter of a PV domain")
}

func hvmContext(s *suite) {
	id, pv := s.create(guest.PVH, 1, 10), s.create(guest.PV64, 1, 10)
	header := make([]byte, 8+24)
	le.PutUint16(header, 1)
	le.PutUint32(header[4:], 24)
	le.PutUint32(header[8:], 0x54381286)
	le.PutUint32(header[12:], 1)
	end := make([]byte, 8)
	badMagic := bytes.Clone(header)
	badMagic[8]++
	tsc := make([]byte, 8+8) // TSC_ADJUST of vCPU 1
	tsc[0], tsc[2], tsc[4] = 19, 1, 8
	pic := make([]byte, 8+8)
	pic[0], pic[4] = 3, 8
	for what, blob := range map[string][]byte{
		"an empty context":       {},
		"a context without END":  header,
		"bad magic":              slices.Concat(badMagic, end),
		"a vCPU there is not":    slices.Concat(header, tsc, end),
		"a record cut off":       slices.Concat(header, end, end[:3]),
		"an unknown record":      slices.Concat(header, []byte{99, 0, 0, 0, 0, 0, 0, 0}, end),
		"a PIC in a PVH domain":  slices.Concat(header, pic, end),
		"a context without HEAD": end,
	} {
		if what != "a record cut off" || s.has(Refusals) {
			s.refused(s.SetHVMContext(s.ctx, id, blob), nil, what)
		}
	}
	s.refused(s.SetHVMContext(s.ctx, pv, slices.Concat(header, end)), nil, "HVM context of a PV domain")
	_, err := s.HVMContext(s.ctx, pv)
	s.refused(err, nil, "HVM context of a PV domain")
}

func tsc(s *suite) {
	id := s.create(guest.HVM, 1, 10)
	s.ok(s.SetTSC(s.ctx, id, guest.TSC{Mode: 1, KHz: 2500000, NSec: 1e9, Incarnation: 4}))
	got, err := s.TSC(s.ctx, id)
	s.ok(err)
	if got.Mode != 1 || got.KHz != 2500000 || got.NSec < 1e9 || got.Incarnation != 5 {
		s.Errorf("TSC comes back as %+v", got)
	}
	s.refused(s.SetTSC(s.ctx, id, guest.TSC{Mode: 9}), nil, "a TSC mode that is not there")
}

func cpuPolicy(s *suite) {
	id := s.create(guest.HVM, 1, 10)
	p, err := s.CPUPolicy(s.ctx, id)
	s.ok(err)
	if len(p.Leaves) == 0 || p.Leaves[0].Leaf != 0 {
		s.Fatalf("a new domain's policy: %+v", p)
	}
	s.ok(s.SetCPUPolicy(s.ctx, id, p))
	again, err := s.CPUPolicy(s.ctx, id)
	s.ok(err)
	if !slices.Equal(p.Leaves, again.Leaves) || !slices.Equal(p.MSRs, again.MSRs) {
		s.Errorf("a policy loaded as it was told comes back as %+v, was %+v", again, p)
	}
	s.refused(s.SetCPUPolicy(s.ctx, id, guest.CPUPolicy{MSRs: []guest.MSR{{Index: 0xDEAD}}}), nil, "a policy for an unknown MSR")
	s.refused(s.SetCPUPolicy(s.ctx, id, guest.CPUPolicy{Leaves: []guest.CPUIDLeaf{{Leaf: 0xDEAD0000, Subleaf: ^uint32(0)}}}), nil, "a policy for an unknown leaf")
}

func grants(s *suite) {
	for _, kind := range []guest.Kind{guest.PV64, guest.HVM} {
		id := s.create(kind, 1, 10)
		gfns := s.populate(id, 0, 2)
		s.ok(s.SeedGrants(s.ctx, id, gfns[0], gfns[1]))
		s.ok(s.SeedGrants(s.ctx, id, guest.InvalidGFN, gfns[0]))
	}
}
