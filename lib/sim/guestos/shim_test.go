package guestos

import (
	"xenferry/lib/guest"
	"xenferry/lib/sim/machine"
)

type shim struct {
	*machine.View
	m  *machine.Machine
	id guest.DomID
}

func (s shim) Info() guest.Info                          { i, _ := s.m.Info(s.id); return i }
func (s shim) VCPUOnline(n uint32) (bool, error)         { return s.m.VCPUOnline(s.id, n) }
func (s shim) VCPUExtended(n uint32) ([]byte, error)     { return s.m.VCPUExtended(s.id, n) }
func (s shim) VCPUXSave(n uint32) ([]byte, error)        { return s.m.VCPUXSave(s.id, n) }
func (s shim) VCPUMSRs(n uint32) ([]guest.MSR, error)    { return s.m.VCPUMSRs(s.id, n) }
func (s shim) TSC() (guest.TSC, error)                   { return s.m.TSC(s.id) }
func (s shim) SetTSC(t guest.TSC) error                  { return s.m.SetTSC(s.id, t) }
