package xen

import "xenferry/lib/guest"

// layout is what differs between versions of the domctl interface (XEN_DOMCTL_INTERFACE_VERSION). Offsets are octets
// into the operation's own structure; 0 is a field that the version lacks.
type layout struct {
	domctl   uint32
	sysctl   []uint32 // the versions that came with it
	releases string   // that speak it

	infoSize      int // sizeof xen_domctl_getdomaininfo
	infoEmulation int // its arch_config.emulation_flags
	create        createLayout
}

// createLayout is xen_domctl_createdomain behind its first three fields, which never moved.
type createLayout struct {
	size                     int
	maxVCPUs, maxEvtchn      int
	maxGrants, maxMaptrack   int
	grantOpts                int
	vmtrace, cpupool, altp2m int
	emulation, misc          int
}

var (
	create411 = createLayout{size: 28, emulation: 24}
	create412 = createLayout{size: 44, maxVCPUs: 24, maxEvtchn: 28, maxGrants: 32, maxMaptrack: 36, emulation: 40}
	create413 = createLayout{size: 48, maxVCPUs: 28, maxEvtchn: 32, maxGrants: 36, maxMaptrack: 40, emulation: 44}
	create415 = createLayout{size: 56, maxVCPUs: 28, maxEvtchn: 32, maxGrants: 36, maxMaptrack: 40, vmtrace: 44, emulation: 48, misc: 52}
	create416 = createLayout{size: 60, maxVCPUs: 28, maxEvtchn: 32, maxGrants: 36, maxMaptrack: 40, grantOpts: 44, vmtrace: 48,
		emulation: 52, misc: 56}
	create417 = createLayout{size: 64, maxVCPUs: 28, maxEvtchn: 32, maxGrants: 36, maxMaptrack: 40, grantOpts: 44, vmtrace: 48,
		cpupool: 52, emulation: 56, misc: 60}
	create419 = createLayout{size: 68, maxVCPUs: 28, maxEvtchn: 32, maxGrants: 36, maxMaptrack: 40, grantOpts: 44, altp2m: 48,
		vmtrace: 52, cpupool: 56, emulation: 60, misc: 64}
)

// layouts is every version of the interface that is known, the newest first.
var layouts = []layout{
	{0x18, []uint32{0x16}, "4.22", 112, 104, create419},
	{0x17, []uint32{0x15, 0x16}, "4.19 to 4.21", 112, 104, create419},
	{0x16, []uint32{0x15}, "4.18", 112, 104, create417},
	{0x15, []uint32{0x15}, "4.17", 112, 104, create417},
	{0x14, []uint32{0x14}, "4.16", 112, 104, create416},
	{0x13, []uint32{0x13}, "4.15", 104, 96, create415},
	{0x12, []uint32{0x12, 0x13}, "4.13 and 4.14", 104, 96, create413},
	{0x11, []uint32{0x12}, "4.12", 104, 96, create412},
	{0x10, []uint32{0x11}, "4.11", 104, 96, create411},
}

// Hypercall numbers (__HYPERVISOR_*).
const (
	callMemoryOp     = 12
	callMulticall    = 13
	callXenVersion   = 17
	callGrantTableOp = 20
	callMMUExtOp     = 26
	callSchedOp      = 29
	callEventChannel = 32
	callHVMOp        = 34
	callSysctl       = 35
	callDomctl       = 36
)

// DOMID_* that are no domains.
const (
	domXen guest.DomID = 0x7FF2 // owner of the M2P
	domAny guest.DomID = 0x7FF5 // createdomain: choose a number
)

// A header of a domctl is 16 octets: cmd, interface_version, domain and padding. Behind it is a union of 128. That of a
// sysctl is 8: cmd and interface_version.
const (
	domctlHeader = 16
	domctlSize   = 144
	sysctlHeader = 8
	sysctlSize   = 136
)

// command is a XEN_DOMCTL_*. None was ever renumbered.
type command uint32

const (
	createDomain         command = 1
	destroyDomain        command = 2
	pauseDomain          command = 3
	unpauseDomain        command = 4
	getDomainInfo        command = 5
	shadowOp             command = 10
	maxMem               command = 11
	setVCPUContext       command = 12
	getVCPUContext       command = 13
	getVCPUInfo          command = 14
	maxVCPUs             command = 15
	resumeDomain         command = 27
	getHVMContext        command = 33
	setHVMContext        command = 34
	setAddressSize       command = 35
	getAddressSize       command = 36
	setExtVCPUContext    command = 42
	getExtVCPUContext    command = 43
	getTSCInfo           command = 59
	setTSCInfo           command = 60
	getPageFrameInfo3    command = 61
	setVCPUExtState      command = 62
	getVCPUExtState      command = 63
	getVCPUMSRs          command = 72
	setVCPUMSRs          command = 73
	setGnttabLimits      command = 80 // gone from 4.12
	getCPUPolicy         command = 82
	setCPUPolicy         command = 83
	setPagingMempoolSize command = 86
)

var commandNames = map[command]string{
	createDomain: "createdomain", destroyDomain: "destroydomain", pauseDomain: "pausedomain", unpauseDomain: "unpausedomain",
	getDomainInfo: "getdomaininfo", shadowOp: "shadow_op", maxMem: "max_mem", setVCPUContext: "setvcpucontext",
	getVCPUContext: "getvcpucontext", getVCPUInfo: "getvcpuinfo", maxVCPUs: "max_vcpus", resumeDomain: "resumedomain",
	getHVMContext: "gethvmcontext", setHVMContext: "sethvmcontext", setAddressSize: "set_address_size",
	getAddressSize: "get_address_size", setExtVCPUContext: "set_ext_vcpucontext", getExtVCPUContext: "get_ext_vcpucontext",
	getTSCInfo: "gettscinfo", setTSCInfo: "settscinfo", getPageFrameInfo3: "getpageframeinfo3",
	setVCPUExtState: "setvcpuextstate", getVCPUExtState: "getvcpuextstate", getVCPUMSRs: "get_vcpu_msrs",
	setVCPUMSRs: "set_vcpu_msrs", setGnttabLimits: "set_gnttab_limits", getCPUPolicy: "get_cpu_policy",
	setCPUPolicy: "set_cpu_policy", setPagingMempoolSize: "set_paging_mempool_size",
}

// String is the command as Xen's headers name it.
func (c command) String() string { return "XEN_DOMCTL_" + commandNames[c] }
