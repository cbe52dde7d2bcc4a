package machine

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// hvmRecord is one type of HVM context record as a release has it.
type hvmRecord struct {
	name    string
	length  int  // octets; of a variable one the least
	perVCPU bool // its instance is a vCPU's number
	two     bool // instances 0 and 1, else 0 only
	shorter bool // one of an older release, cut off at the end, is zero-extended
	least   int  // but never to fewer octets than this
	longer  bool // of variable length
	noPVH   bool // of a device that PVH domains lack
}

// Record types with a meaning beyond their length.
const (
	hvmEnd    = 0
	hvmHeader = 1
	hvmCPU    = 2
	hvmXSave  = 16
	hvmMSRs   = 20
)

const (
	hvmDescriptor = 8
	hvmMagic      = 0x54381286
	hvmVersion    = 1
)

// hvmRecords is the record types by code. hvmRecordOf adapts them to a release.
var hvmRecords = [...]hvmRecord{
	hvmEnd:    {name: "END"},
	hvmHeader: {name: "HEADER", length: 24},
	hvmCPU:    {name: "CPU", length: 1032, perVCPU: true, shorter: true, least: 1016},
	3:         {name: "PIC", length: 8, two: true, noPVH: true},
	4:         {name: "IOAPIC", length: 400, noPVH: true},
	5:         {name: "LAPIC", length: 24, perVCPU: true, shorter: true, least: 24},
	6:         {name: "LAPIC_REGS", length: 1024, perVCPU: true},
	7:         {name: "PCI_IRQ", length: 16},
	8:         {name: "ISA_IRQ", length: 8},
	9:         {name: "PCI_LINK", length: 8},
	10:        {name: "PIT", length: 56, noPVH: true},
	11:        {name: "RTC", length: 24, shorter: true, least: 16, noPVH: true},
	12:        {name: "HPET", length: 1048, noPVH: true},
	13:        {name: "PMTIMER", length: 8, noPVH: true},
	14:        {name: "MTRR", length: 240, perVCPU: true},
	15:        {name: "VIRIDIAN_DOMAIN", length: 32, shorter: true, least: 32},
	hvmXSave:  {name: "CPU_XSAVE", length: 24 + xsaveMin, perVCPU: true, longer: true},
	17:        {name: "VIRIDIAN_VCPU", length: 216, perVCPU: true, shorter: true, least: 8},
	18:        {name: "VMCE_VCPU", length: 32, perVCPU: true, shorter: true, least: 24},
	19:        {name: "TSC_ADJUST", length: 8, perVCPU: true},
	hvmMSRs:   {name: "CPU_MSR", length: 8, perVCPU: true, longer: true},
}

// hvmRecordOf is the record type code of a release. The LAPIC record grew in point releases of 4.18 to 4.20; those
// that distributions ship have the long one.
func hvmRecordOf(r guest.Release, code uint16) (hvmRecord, bool) {
	if int(code) >= len(hvmRecords) {
		return hvmRecord{}, false
	}
	rec := hvmRecords[code]
	if code == 5 && r.AtLeast(4, 18) {
		rec.length = 32
	}
	return rec, true
}

// HVMContext is an HVM domain's state as it was loaded, with what the guest has changed since.
func (m *Machine) HVMContext(id guest.DomID) (blob []byte, err error) {
	err = m.with("get HVM context of", id, func(d *domain) error { blob, err = d.getHVMContext(); return err })
	return blob, err
}

func (d *domain) getHVMContext() ([]byte, error) {
	switch {
	case d.pv():
		return nil, refuse(unix.EINVAL, "it is a PV domain")
	case d.hvmContext == nil:
		return nil, refuse(unix.ENODATA, "it was never given one")
	}
	return bytes.Clone(d.hvmContext), nil
}

// SetHVMContext loads it. Each record must be one that the release takes, for a vCPU or device that is there.
func (m *Machine) SetHVMContext(id guest.DomID, blob []byte) error {
	return m.with("set HVM context of", id, func(d *domain) error { return d.setHVMContext(blob) })
}

func (d *domain) setHVMContext(blob []byte) error {
	if d.pv() {
		return refuse(unix.EINVAL, "it is a PV domain")
	}
	online := make([]bool, len(d.vcpus))
	seen := map[[2]uint16]bool{}
	first, ended := true, false
	err := eachHVMRecord(blob, func(code, instance uint16, at int, body []byte) error {
		if first && code != hvmHeader {
			return refuse(unix.EINVAL, "it does not begin with a HEADER")
		}
		first = false
		name, err := d.checkHVMRecord(code, instance, body)
		if err == nil && seen[[2]uint16{code, instance}] {
			err = refuse(unix.EINVAL, "there is one already")
		}
		if err != nil {
			return refuse(errnoOf(err), "offset %#x: %s record, instance %d: %s", at, name, instance, whyOf(err))
		}
		seen[[2]uint16{code, instance}] = true
		if code == hvmCPU {
			online[instance] = true
		}
		ended = code == hvmEnd
		return nil
	})
	if err != nil {
		return err
	}
	if !ended {
		return refuse(unix.EINVAL, "%d octets without an END record", len(blob))
	}
	d.hvmContext = bytes.Clone(blob)
	for i, on := range online {
		d.vcpus[i].initialised, d.vcpus[i].online = on, on
	}
	return nil
}

// eachHVMRecord calls f for the records of a context up to END. What follows END is an error.
func eachHVMRecord(blob []byte, f func(code, instance uint16, at int, body []byte) error) error {
	for at := 0; at < len(blob); {
		rest := blob[at:]
		if len(rest) < hvmDescriptor {
			return refuse(unix.EINVAL, "offset %#x: %d octets are no record", at, len(rest))
		}
		code, instance, n := le.Uint16(rest), le.Uint16(rest[2:]), uint64(le.Uint32(rest[4:]))
		if n > uint64(len(rest)-hvmDescriptor) {
			return refuse(unix.EINVAL, "offset %#x: a record of %d octets is cut off", at, n)
		}
		if err := f(code, instance, at, rest[hvmDescriptor:hvmDescriptor+n]); err != nil {
			return err
		}
		at += hvmDescriptor + int(n)
		if code == hvmEnd && at != len(blob) {
			return refuse(unix.EINVAL, "offset %#x: %d octets behind END", at, len(blob)-at)
		}
	}
	return nil
}

func (d *domain) checkHVMRecord(code, instance uint16, body []byte) (name string, err error) {
	rec, ok := hvmRecordOf(d.m.release, code)
	if !ok {
		return fmt.Sprintf("type %d", code), refuse(unix.EINVAL, "Xen %v has no such record", d.m.release)
	}
	instances := 1
	if rec.perVCPU {
		instances = len(d.vcpus)
	} else if rec.two {
		instances = 2
	}
	switch n := len(body); {
	case rec.noPVH && d.spec.Kind == guest.PVH:
		return rec.name, refuse(unix.ENODEV, "a PVH domain has no such device")
	case int(instance) >= instances:
		return rec.name, refuse(unix.EINVAL, "there are %d", instances)
	case n < rec.length && !(rec.shorter && n >= rec.least), n > rec.length && !rec.longer:
		return rec.name, refuse(unix.EINVAL, "%d octets; Xen %v wants %d", n, d.m.release, rec.length)
	}
	switch code {
	case hvmHeader:
		if magic, version := le.Uint32(body), le.Uint32(body[4:]); magic != hvmMagic || version != hvmVersion {
			err = refuse(unix.EINVAL, "magic %#x, version %d: want %#x and %d", magic, version, uint32(hvmMagic), hvmVersion)
		}
	case hvmXSave:
		err = checkXSave(body[8:])
	case hvmMSRs:
		if count := uint64(le.Uint32(body)); uint64(len(body)) != 8+count*16 {
			err = refuse(unix.EINVAL, "%d octets for %d MSRs", len(body), count)
		}
	}
	return rec.name, err
}

// hvmCPURegs is where the general registers are in a CPU record: rax, rbx, rcx, rdx, rbp, rsi, rdi, rsp, r8 to r15,
// rip, rflags.
const hvmCPURegs = 512

// contextRegs is where vcpu_guest_context has the same registers, in the same order.
var contextRegs = [...]int{600, 560, 608, 616, 552, 624, 632, 672, 592, 584, 576, 568, 544, 536, 528, 520, 648, 664}

// cpuRecord is the body of vCPU n's CPU record, which must be there.
func (d *domain) cpuRecord(n uint32) (record []byte) {
	_ = eachHVMRecord(d.hvmContext, func(code, instance uint16, _ int, body []byte) error {
		if code == hvmCPU && uint32(instance) == n {
			record = body
		}
		return nil
	})
	return record
}

// hvmRegisters is an HVM vCPU's registers as a vcpu_guest_context, which has no room for the rest of its state.
func (d *domain) hvmRegisters(n uint32) []byte {
	c, r := make([]byte, layout64.size), d.cpuRecord(n)
	for i, at := range contextRegs {
		copy(c[at:at+8], r[hvmCPURegs+8*i:])
	}
	if d.vcpus[n].online {
		c[contextFlags] = vgcfOnline
	}
	return c
}

func (d *domain) setHVMRegisters(n uint32, c []byte) error {
	if !d.vcpus[n].initialised {
		return refuse(unix.EINVAL, "vCPU %d has no state yet: that comes with the HVM context", n)
	}
	r := d.cpuRecord(n)
	for i, at := range contextRegs {
		copy(r[hvmCPURegs+8*i:hvmCPURegs+8*i+8], c[at:])
	}
	return nil
}

// HVM parameters (xen/include/public/hvm/params.h), as far as they are treated unlike others.
const (
	hvmParamCallbackIRQ = 0
	hvmParamPAE         = 4
	hvmParamVM86TSS     = 15
	hvmParamNestedHVM   = 24 // until 4.14
	hvmParamALTP2M      = 35
	hvmParamTSSSized    = 37
	hvmParamCount       = 39
)

// hvmParamGone are parameters that no release played here still has.
var hvmParamGone = [hvmParamCount]bool{
	hvmParamPAE: true, 13: true, 20: true, 21: true, 22: true, 23: true, 25: true, 26: true, 30: true,
}

// hvmParamOnce are parameters that cannot be changed once they are not zero: IOREQ_PFN, BUFIOREQ_PFN, VIRIDIAN,
// IOREQ_SERVER_PFN, NR_IOREQ_SERVER_PAGES, ALTP2M, MCA_CAP.
var hvmParamOnce = [hvmParamCount]bool{5: true, 6: true, 9: true, 32: true, 33: true, hvmParamALTP2M: true, 38: true}

// HVMParam is one parameter of an HVM domain.
func (m *Machine) HVMParam(id guest.DomID, index uint32) (value uint64, err error) {
	err = m.with("get HVM parameter of", id, func(d *domain) error { value, err = d.hvmParam(index); return err })
	return value, err
}

func (d *domain) hvmParam(index uint32) (uint64, error) {
	if err := d.hasHVMParam(index); err != nil {
		return 0, err
	}
	return d.hvmParams[index], nil
}

func (d *domain) hasHVMParam(index uint32) error {
	switch {
	case d.pv():
		return refuse(unix.EINVAL, "it is a PV domain")
	case index >= hvmParamCount, hvmParamGone[index], index == hvmParamNestedHVM && d.m.release.AtLeast(4, 15):
		return refuse(unix.EINVAL, "Xen %v has no parameter %d", d.m.release, index)
	}
	return nil
}

// SetHVMParam sets one parameter.
func (m *Machine) SetHVMParam(id guest.DomID, index uint32, value uint64) error {
	return m.with("set HVM parameter of", id, func(d *domain) error { return d.setHVMParam(index, value) })
}

func (d *domain) setHVMParam(index uint32, value uint64) error {
	if err := d.hasHVMParam(index); err != nil {
		return err
	}
	old := d.hvmParams[index]
	switch {
	case index == hvmParamALTP2M && d.m.release.AtLeast(4, 19):
		return refuse(unix.EEXIST, "parameter %d cannot be set", index)
	case hvmParamOnce[index] && old != 0 && old != value:
		return refuse(unix.EEXIST, "parameter %d is %#x already, not %#x", index, old, value)
	case index == hvmParamVM86TSS:
		index = hvmParamTSSSized
	}
	d.hvmParams[index] = value
	return nil
}
