package xcstream

import (
	"encoding/json"
	"fmt"

	"xenferry/lib/guest"
	"xenferry/lib/record"
)

// TSCInfo is X86_TSC_INFO (type 0x08), a domain's time stamp counter. Body, 24 octets:
//
//	 0  mode         u32  TSC_MODE_*; opaque here, Xen judges it
//	 4  khz          u32  guest TSC frequency, kHz
//	 8  nsec         u64  time the guest has seen pass, ns
//	16  incarnation  u32  counts the guest's restores
//	20  (reserved)   u32
//
// The domctl has these fields in another order. The only error is a body of another length. Spec: X86_TSC_INFO.
type TSCInfo guest.TSC

// Append adds t's body to b.
func (t TSCInfo) Append(b []byte) []byte {
	b = le.AppendUint32(b, t.Mode)
	b = le.AppendUint32(b, t.KHz)
	b = le.AppendUint64(b, t.NSec)
	b = le.AppendUint32(b, t.Incarnation)
	return le.AppendUint32(b, 0)
}

// Decode sets t from the body under c.
func (t *TSCInfo) Decode(c *record.Cursor) error {
	t.Mode, t.KHz = c.U32(), c.U32()
	t.NSec, t.Incarnation = c.U64(), c.U32()
	c.Reserved(4)
	return c.Done()
}

// HVMParam is one HVM parameter by its HVM_PARAM_* index.
type HVMParam struct {
	Index, Value uint64
}

// HVMParams is HVM_PARAMS (type 0x0A). Body:
//
//	0  count       u32
//	4  (reserved)  u32
//	8  count of { index u64, value u64 }
//
// A count of 0 decodes (erratum 1 of the specification); nobody shall write one. Spec: HVM_PARAMS.
type HVMParams []HVMParam

// Append adds p's body to b.
func (p HVMParams) Append(b []byte) []byte {
	b = le.AppendUint32(le.AppendUint32(b, uint32(len(p))), 0)
	for _, e := range p {
		b = le.AppendUint64(le.AppendUint64(b, e.Index), e.Value)
	}
	return b
}

// Decode sets p from the body under c.
func (p *HVMParams) Decode(c *record.Cursor) error {
	count := uint64(c.U32())
	c.Reserved(4)
	if have := uint64(c.Left()); c.Err() == nil && have != count*16 {
		c.Fail(fmt.Errorf("%w: %d octets for %d parameters of 16", record.ErrLength, have, count))
		return c.Err()
	}
	*p = make(HVMParams, c.Left()/16)
	for i := range *p {
		(*p)[i] = HVMParam{c.U64(), c.U64()}
	}
	return c.Done()
}

// CPUIDPolicy is X86_CPUID_POLICY (type 0x11), at least one entry of six u32: leaf, subleaf, a, b, c, d.
// Spec: X86_CPUID_POLICY.
type CPUIDPolicy []guest.CPUIDLeaf

// Append adds p's body to b.
func (p CPUIDPolicy) Append(b []byte) []byte {
	for _, l := range p {
		for _, v := range [...]uint32{l.Leaf, l.Subleaf, l.A, l.B, l.C, l.D} {
			b = le.AppendUint32(b, v)
		}
	}
	return b
}

// Decode sets p from the body under c.
func (p *CPUIDPolicy) Decode(c *record.Cursor) error {
	if c.Left() == 0 {
		c.Fail(fmt.Errorf("%w: no entries", record.ErrLength))
	}
	*p = make(CPUIDPolicy, c.Left()/24)
	for i := range *p {
		(*p)[i] = guest.CPUIDLeaf{Leaf: c.U32(), Subleaf: c.U32(), A: c.U32(), B: c.U32(), C: c.U32(), D: c.U32()}
	}
	return c.Done()
}

// MSRPolicy is X86_MSR_POLICY (type 0x12), at least one entry of u32 index, u32 flags (0), u64 value.
// Spec: X86_MSR_POLICY.
type MSRPolicy []guest.MSR

// Append adds p's body to b.
func (p MSRPolicy) Append(b []byte) []byte {
	for _, m := range p {
		b = le.AppendUint64(le.AppendUint32(le.AppendUint32(b, m.Index), m.Flags), m.Value)
	}
	return b
}

// Decode sets p from the body under c.
func (p *MSRPolicy) Decode(c *record.Cursor) error {
	if c.Left() == 0 {
		c.Fail(fmt.Errorf("%w: no entries", record.ErrLength))
	}
	*p = make(MSRPolicy, c.Left()/16)
	for i := range *p {
		(*p)[i] = guest.MSR{Index: c.U32(), Flags: c.U32(), Value: c.U64()}
		if f := (*p)[i].Flags; f != 0 && c.Strict() {
			c.Fail(fmt.Errorf("%w: flags of MSR %#x are %#x", record.ErrReserved, (*p)[i].Index, f))
		}
	}
	return c.Done()
}

// PFNList is CHECKPOINT_DIRTY_PFN_LIST (type 0x0F), u64 each; it goes from a COLO secondary to its primary only.
// Spec: CHECKPOINT_DIRTY_PFN_LIST.
type PFNList []guest.PFN

// Append adds l's body to b.
func (l PFNList) Append(b []byte) []byte {
	for _, p := range l {
		b = le.AppendUint64(b, uint64(p))
	}
	return b
}

// Decode sets l from the body under c.
func (l *PFNList) Decode(c *record.Cursor) error {
	*l = make(PFNList, c.Left()/8)
	for i := range *l {
		(*l)[i] = guest.PFN(c.U64())
	}
	return c.Done()
}

// Domain is XENFERRY_DOMAIN (type 0x80786601, ours): a guest.Spec as JSON, what it takes to make the domain and a libxc
// stream does not say. It comes once, after STATIC_DATA_END. Errors: ErrValue for what is no JSON of a Spec, or has no kind.
type Domain struct{ guest.Spec }

// Append adds the JSON to b. The kind must be one that exists.
func (d Domain) Append(b []byte) []byte {
	j, err := json.Marshal(d.Spec)
	if err != nil {
		panic(err) // a Spec with a kind that does not exist
	}
	return append(b, j...)
}

// Decode sets d from the body under c.
func (d *Domain) Decode(c *record.Cursor) error {
	d.Spec = guest.Spec{}
	if err := json.Unmarshal(c.Rest(), &d.Spec); err != nil {
		c.Failf("%v", err)
	} else if d.Kind == 0 {
		c.Failf("no kind")
	}
	return c.Done()
}

// Empty is the body of the records that only signal: END, VERIFY, CHECKPOINT, STATIC_DATA_END. Stock restore does not
// look at their length; strict mode does.
type Empty struct{}

// Append adds nothing to b.
func (Empty) Append(b []byte) []byte { return b }

// Decode checks that nothing is there.
func (*Empty) Decode(c *record.Cursor) error {
	if !c.Strict() {
		c.Rest()
	}
	return c.Done()
}
