package verify

import (
	"bytes"

	"xenferry/lib/xcstream"
)

// The closed list of what Compare lets differ, as restore must change it by its nature. Offsets are those of Xen's public
// headers: xen.h for start_info and shared_info, arch-x86/xen*.h for their parts and vcpu_guest_context.

// span is octets that may differ, or of one octet only the bits of mask.
type span struct {
	offset, size int
	mask         byte // 0: all bits
}

// pvExempt is what may differ in structures of a PV guest of one width.
type pvExempt struct {
	startInfo  []span // restore fills these in for the new host
	sharedInfo []span // event channels are gone, the clock is the host's, the tree must be named anew
	context    []span // restore sets VGCF_online
}

// The numbers of a shared_info that lists of exemptions are made of.
const (
	sharedVCPUs    = 32 // vcpu_info entries
	sharedVCPUSize = 64
)

// pendingSel is evtchn_pending_sel of every vcpu_info: a guest word, at its own size from the entry's begin.
func pendingSel(width int) (spans []span) {
	for i := range sharedVCPUs {
		spans = append(spans, span{offset: i*sharedVCPUSize + width, size: width})
	}
	return spans
}

var pvExempts = map[uint8]pvExempt{
	4: {
		startInfo: []span{
			{offset: 32, size: 4}, // nr_pages
			{offset: 36, size: 4}, // shared_info
			{offset: 40, size: 4}, // flags
			{offset: 48, size: 4}, // store_evtchn
			{offset: 56, size: 4}, // console.domU.evtchn
		},
		sharedInfo: append(pendingSel(4),
			span{offset: 2048, size: 128}, // evtchn_pending
			span{offset: 2176, size: 128}, // evtchn_mask
			span{offset: 2304, size: 12},  // wc_version, wc_sec, wc_nsec
			span{offset: 2320, size: 4},   // arch.pfn_to_mfn_frame_list_list
			span{offset: 2340, size: 4},   // arch.wc_sec_hi
		),
		context: []span{{offset: 512, size: 1, mask: vgcfOnline}}, // flags
	},
	8: {
		startInfo: []span{
			{offset: 32, size: 8}, // nr_pages
			{offset: 40, size: 8}, // shared_info
			{offset: 48, size: 4}, // flags
			{offset: 64, size: 4}, // store_evtchn
			{offset: 80, size: 4}, // console.domU.evtchn
		},
		sharedInfo: append(pendingSel(8),
			span{offset: 2048, size: 512}, // evtchn_pending
			span{offset: 2560, size: 512}, // evtchn_mask
			span{offset: 3072, size: 16},  // wc_version, wc_sec, wc_nsec, wc_sec_hi
			span{offset: 3096, size: 8},   // arch.pfn_to_mfn_frame_list_list
		),
		context: []span{{offset: 512, size: 1, mask: vgcfOnline}}, // flags
	},
}

// vgcfOnline is VGCF_online of vcpu_guest_context's flags.
const vgcfOnline = 1 << 5

// exemptParams are the HVM parameters that name a page which restore clears or fills anew.
var exemptParams = []uint64{xcstream.HVMParamStorePFN, xcstream.HVMParamConsolePFN, xcstream.HVMParamIOReqPFN, xcstream.HVMParamBufIOReqPFN}

// hvmCPUExempt is what may differ in an HVM CPU entry of length octets: tsc.
func hvmCPUExempt(length int) []span {
	return []span{{offset: xcstream.HVMCPUTSC(length), size: 8}}
}

// without returns a copy of b in which all that may differ is zero.
func without(b []byte, spans []span) []byte {
	b = bytes.Clone(b)
	for _, s := range spans {
		if s.offset+s.size > len(b) {
			continue
		}
		if s.mask != 0 {
			b[s.offset] &^= s.mask
			continue
		}
		clear(b[s.offset : s.offset+s.size])
	}
	return b
}
