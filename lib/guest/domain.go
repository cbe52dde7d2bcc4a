package guest

import (
	"fmt"
	"sync/atomic"

	"github.com/google/uuid"
)

// ShutdownReason says why a domain stopped (xen/include/public/sched.h, SHUTDOWN_*).
type ShutdownReason uint8

// The reasons that matter here.
const (
	ShutdownPoweroff ShutdownReason = 0
	ShutdownReboot   ShutdownReason = 1
	ShutdownSuspend  ShutdownReason = 2
	ShutdownCrash    ShutdownReason = 3
)

// String returns poweroff, reboot and so on; of a number that is not known here, it as such.
func (r ShutdownReason) String() string {
	names := [...]string{"poweroff", "reboot", "suspend", "crash", "watchdog", "soft reset"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Info is what a host says of a domain (XEN_DOMCTL_getdomaininfo, and the toolstack's name for it).
type Info struct {
	ID            DomID          `json:"domid"`
	UUID          uuid.UUID      `json:"uuid"`
	Name          string         `json:"name"`
	Kind          Kind           `json:"kind"`
	Dying         bool           `json:"dying"`
	Paused        bool           `json:"paused"` // by a toolstack; a suspended domain is not paused by that alone
	Shutdown      bool           `json:"shutdown"`
	Reason        ShutdownReason `json:"reason"`         // if Shutdown
	TotPages      uint64         `json:"tot_pages"`      // frames the domain owns
	MaxPages      uint64         `json:"max_pages"`      // frames it may own
	SharedInfo    MFN            `json:"shared_info"`    // PV: the frame of its shared_info
	MaxVCPU       uint32         `json:"max_vcpu"`       // highest vCPU number there is
	LogDirty      bool           `json:"log_dirty"`      // somebody keeps a log of its writes
	EverUnpaused  bool           `json:"ever_unpaused"`  // it has run on this host
	StoreEvtchn   uint32         `json:"store_evtchn"`   // port the restorer hands to the guest for xenstore
	ConsoleEvtchn uint32         `json:"console_evtchn"` // and for the console
}

// Suspended reports whether the domain has stopped itself in order to be saved.
func (i *Info) Suspended() bool { return i.Shutdown && i.Reason == ShutdownSuspend }

// State says in words what the domain does: "runs", or why it does not.
func (i *Info) State() string {
	switch {
	case i.Dying:
		return "is dying"
	case i.Suspended():
		return "is suspended"
	case i.Shutdown:
		return fmt.Sprintf("has shut down (%v)", i.Reason)
	case i.Paused:
		return "is paused"
	}
	return "runs"
}

// Spec is what a host must be told to make a domain, and what a libxc stream does not say. As JSON it is what
// xc-save --domain-out and xc-sim create write, and what xc-restore --domain reads; member names are part of that format.
type Spec struct {
	Name     string    `json:"name,omitempty"`
	UUID     uuid.UUID `json:"uuid"`
	Kind     Kind      `json:"kind"`
	VCPUs    uint32    `json:"vcpus"`
	MaxPages uint64    `json:"max_pages"` // memory limit in pages of 4 KiB, special pages included
	// Pages is how many of them it owned when that was asked, fewer where a balloon has some; 0 if nobody asked.
	Pages uint64 `json:"pages,omitempty"`
}

// Needs is how many pages the domain will take.
func (s *Spec) Needs() uint64 {
	if s.Pages > 0 {
		return min(s.Pages, s.MaxPages)
	}
	return s.MaxPages
}

// Rings tells where the pages are over which a domain speaks to xenstore and to its console: 0 if nobody ever said.
type Rings struct{ Store, Console GFN }

// TSC is a domain's time stamp counter as XEN_DOMCTL_gettscinfo tells it.
type TSC struct {
	Mode, KHz   uint32
	NSec        uint64 // time the guest has seen pass, ns
	Incarnation uint32 // counts the guest's restores
}

// CPUIDLeaf is one entry of a CPU policy (xen_cpuid_leaf_t). A leaf without subleaves has Subleaf 0xFFFFFFFF.
type CPUIDLeaf struct{ Leaf, Subleaf, A, B, C, D uint32 }

// MSR is one model-specific register with its value: an entry of a CPU policy (xen_msr_entry_t) or of a vCPU's list
// (XEN_DOMCTL_get_vcpu_msrs). Flags must be 0 in both.
type MSR struct {
	Index, Flags uint32
	Value        uint64
}

// CPUPolicy is what a domain may see of its processor.
type CPUPolicy struct {
	Leaves []CPUIDLeaf
	MSRs   []MSR
}

// PinOp pins the frame MFN as a page table of Level 1 to 4.
type PinOp struct {
	MFN   MFN
	Level int
}

// M2P is the host's table from machine frames to guest frames, mapped read-only: M2P[m] is the PFN that frame m
// has in its owner. What frames of another owner hold is arbitrary, so an answer counts only if the guest's own P2M
// leads back to m. It changes while guests run.
type M2P []uint64

// PFN looks m up. A frame past the table's end has none.
func (t M2P) PFN(m MFN) PFN {
	if uint64(m) >= uint64(len(t)) {
		return InvalidPFN
	}
	return PFN(atomic.LoadUint64(&t[m]))
}
