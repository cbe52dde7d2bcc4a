package xcstream

import (
	"fmt"

	"xenferry/lib/guest"
)

// The HVM parameters that savers write or restorers set (HVM_PARAM_* of xen/include/public/hvm/params.h).
const (
	HVMParamCallbackIRQ        = 0
	HVMParamStorePFN           = 1
	HVMParamStoreEvtchn        = 2
	HVMParamPAEEnabled         = 4
	HVMParamIOReqPFN           = 5
	HVMParamBufIOReqPFN        = 6
	HVMParamViridian           = 9
	HVMParamIdentPT            = 12
	HVMParamVM86TSS            = 15
	HVMParamConsolePFN         = 17
	HVMParamConsoleEvtchn      = 18
	HVMParamACPIIOPorts        = 19
	HVMParamPagingRingPFN      = 27
	HVMParamMonitorRingPFN     = 28
	HVMParamSharingRingPFN     = 29
	HVMParamIOReqServerPFN     = 32
	HVMParamNrIOReqServerPages = 33
	HVMParamVMGenerationIDAddr = 34
	HVMParamX87FIPWidth        = 36
	HVMParamVM86TSSSized       = 37
	HVMParamMCACap             = 38
	hvmParamMemoryEventCR0     = 20
	hvmParamNestedHVM          = 24
	hvmParamMemoryEventStep    = 25
	hvmParamDMDomain           = 13
	hvmParamBufIOReqEvtchn     = 26
	hvmParamMemoryEventMSR     = 30
)

var hvmParamNames = [...]string{
	0: "CALLBACK_IRQ", 1: "STORE_PFN", 2: "STORE_EVTCHN", 4: "PAE_ENABLED", 5: "IOREQ_PFN", 6: "BUFIOREQ_PFN",
	9: "VIRIDIAN", 10: "TIMER_MODE", 11: "HPET_ENABLED", 12: "IDENT_PT", 13: "DM_DOMAIN", 14: "ACPI_S_STATE",
	15: "VM86_TSS", 16: "VPT_ALIGN", 17: "CONSOLE_PFN", 18: "CONSOLE_EVTCHN", 19: "ACPI_IOPORTS_LOCATION",
	20: "MEMORY_EVENT_CR0", 21: "MEMORY_EVENT_CR3", 22: "MEMORY_EVENT_CR4", 23: "MEMORY_EVENT_INT3", 24: "NESTEDHVM",
	25: "MEMORY_EVENT_SINGLE_STEP", 26: "BUFIOREQ_EVTCHN", 27: "PAGING_RING_PFN", 28: "MONITOR_RING_PFN",
	29: "SHARING_RING_PFN", 30: "MEMORY_EVENT_MSR", 31: "TRIPLE_FAULT_REASON", 32: "IOREQ_SERVER_PFN",
	33: "NR_IOREQ_SERVER_PAGES", 34: "VM_GENERATION_ID_ADDR", 35: "ALTP2M", 36: "X87_FIP_WIDTH",
	37: "VM86_TSS_SIZED", 38: "MCA_CAP",
}

// HVMParamName is the name of an HVM parameter in Xen's header without its HVM_PARAM_, or its number.
func HVMParamName(index uint64) string {
	if index < uint64(len(hvmParamNames)) && hvmParamNames[index] != "" {
		return hvmParamNames[index]
	}
	return fmt.Sprintf("HVM parameter %d", index)
}

// HVMParamCount is how many indices a release has (HVM_NR_PARAMS); of 4.6 its last point release counts.
func HVMParamCount(r guest.Release) uint64 {
	switch {
	case r.AtLeast(4, 10):
		return 39
	case r.AtLeast(4, 9):
		return 38
	}
	return 37
}

// HVMParamSettable reports whether a Xen of release r takes index in HVMOP_set_param and tells it in HVMOP_get_param.
// Deprecated ones, which it once took, are refused from 4.12 on, PAE_ENABLED from 4.14, NESTEDHVM from 4.15.
func HVMParamSettable(r guest.Release, index uint64) bool {
	switch {
	case index >= HVMParamCount(r):
		return false
	case index == HVMParamPAEEnabled:
		return !r.AtLeast(4, 14)
	case index == hvmParamNestedHVM:
		return !r.AtLeast(4, 15)
	case index >= hvmParamMemoryEventCR0 && index <= hvmParamMemoryEventStep,
		index == hvmParamDMDomain, index == hvmParamBufIOReqEvtchn, index == hvmParamMemoryEventMSR:
		return !r.AtLeast(4, 12)
	}
	return true
}

// SavedHVMParams is the indices that a saver on release r asks for, in the order in which it writes those that are not
// zero. r has all of them: to ask for another is an error that ends the save.
func SavedHVMParams(r guest.Release) []uint64 {
	p := []uint64{HVMParamStorePFN, HVMParamIOReqPFN, HVMParamBufIOReqPFN, HVMParamPagingRingPFN, HVMParamMonitorRingPFN,
		HVMParamSharingRingPFN}
	if r.AtLeast(4, 9) {
		p = append(p, HVMParamVM86TSSSized)
	} else {
		p = append(p, HVMParamVM86TSS)
	}
	p = append(p, HVMParamConsolePFN, HVMParamACPIIOPorts, HVMParamViridian, HVMParamIdentPT)
	if !r.AtLeast(4, 14) {
		p = append(p, HVMParamPAEEnabled)
	}
	p = append(p, HVMParamVMGenerationIDAddr, HVMParamIOReqServerPFN, HVMParamNrIOReqServerPages, HVMParamX87FIPWidth)
	if r.AtLeast(4, 10) {
		p = append(p, HVMParamMCACap)
	}
	return p
}
