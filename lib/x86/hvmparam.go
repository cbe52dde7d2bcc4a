package x86

import "xenferry/lib/guest"

// The HVM parameters that saving and restoring know by name (xen/include/public/hvm/params.h, HVM_PARAM_*).
const (
	paramStorePFN           = 1
	paramStoreEvtchn        = 2
	paramPAEEnabled         = 4
	paramIOReqPFN           = 5
	paramBufIOReqPFN        = 6
	paramViridian           = 9
	paramIdentPT            = 12
	paramConsolePFN         = 17
	paramConsoleEvtchn      = 18
	paramACPIIOPorts        = 19
	paramNestedHVM          = 24 // until 4.14
	paramPagingRingPFN      = 27
	paramMonitorRingPFN     = 28
	paramSharingRingPFN     = 29
	paramIOReqServerPFN     = 32
	paramNrIOReqServerPages = 33
	paramVMGenerationIDAddr = 34
	paramX87FIPWidth        = 36
	paramVM86TSSSized       = 37
	paramMCACap             = 38
)

// savedParams is the parameters that a saver on release r asks for, in its order. Each has to exist there: asking for
// one that does not is an error. The oldest release it is right for is 4.10.
func savedParams(r guest.Release) []uint32 {
	list := []uint32{
		paramStorePFN, paramIOReqPFN, paramBufIOReqPFN, paramPagingRingPFN, paramMonitorRingPFN, paramSharingRingPFN,
		paramVM86TSSSized, paramConsolePFN, paramACPIIOPorts, paramViridian, paramIdentPT,
	}
	if !r.AtLeast(4, 14) {
		list = append(list, paramPAEEnabled)
	}
	return append(list, paramVMGenerationIDAddr, paramIOReqServerPFN, paramNrIOReqServerPages, paramX87FIPWidth, paramMCACap)
}
