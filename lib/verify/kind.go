package verify

import (
	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// Kinds of guest that the stream leaves open.
const (
	kindPV       = "pv"
	kindHVMOrPVH = "hvm or pvh"
)

// kind is the kind of the guest, as well as the stream tells it so far. PVH and HVM are one domain type: our optional
// record, the configuration in an xl header and an emulator's record say which, and so does HVM_CONTEXT, as only HVM
// has emulated interrupt controllers.
func (x *libxc) kind() string {
	if x.r.Domain.Type == xcstream.DomainPV {
		switch x.width {
		case 8:
			return guest.PV64.String()
		case 4:
			return guest.PV32.String()
		}
		return kindPV
	}
	if x.img.Domain != nil && !x.img.Domain.Kind.PV() {
		return x.img.Domain.Kind.String()
	}
	if xl := x.v.report.XL; xl != nil && (xl.Type == "hvm" || xl.Type == "pvh") {
		return xl.Type
	}
	if l := x.v.report.LibXL; l != nil && l.Emulator != "" {
		return guest.HVM.String()
	}
	if x.img.HVMContext != nil {
		for _, e := range x.img.HVMContext.Entries {
			if c := xcstream.HVMCode(e.Code); c == xcstream.HVMPIC || c == xcstream.HVMIOAPIC {
				return guest.HVM.String()
			}
		}
		return guest.PVH.String()
	}
	return kindHVMOrPVH
}
