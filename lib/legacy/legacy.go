// Package legacy reads the images that xc_domain_save of Xen 4.5 and older wrote, "legacy" since 4.6, and converts them
// to streams of today: libxc images of version 2 or 3, bare or within a libxl stream. There is no way back.
//
// A Reader yields an image's parts as typed items with their offsets. Convert makes records of them as they come: it
// holds no more than a batch's entries, passes page contents on unseen, and takes not an octet behind the image.
//
// An image has no framing: numbers are as wide as a long of the toolstack that saved it, most chunks have no length, and
// what comes next follows only from what came before. So whoever loses his place cannot find it again.
//
//	[xend or xl header]  p2m_size
//	PV: extended info, P2M frame list
//	chunks, up to END
//	PV: unmapped PFNs, vCPUs, shared info    HVM: magic PFNs, HVM context, QEMU record
//	Remus: again from the chunks on, for each checkpoint
//
// Source: xc_domain_save.c, xc_domain_restore.c, xg_save_restore.h, libxl_dom.c of Xen 4.5.
package legacy

import (
	"encoding/binary"
	"errors"
	"fmt"

	"xenferry/lib/xcstream"
)

var le = binary.LittleEndian

// ErrUnsupported is what is known of an image and has no form in a stream of today.
var ErrUnsupported = errors.New("cannot be converted")

// Limits of what is taken, in octets unless named otherwise.
const (
	maxBatch   = 1024    // entries of a page batch
	maxVCPUID  = 4095    // what VCPU_INFO may name
	maxText    = 4 << 20 // toolstack data, which is held back until the libxc image is over
	maxPending = 1 << 16 // HVM parameters held back; vCPUs to come in the tail
	maxHeld    = 8 << 20 // a part that has to be whole before its first octet is written
)

// Width is the size in octets of a long of the toolstack that saved an image.
type Width int

// The widths. Width 0 is one that is not known.
const (
	Width32 Width = 4
	Width64 Width = 8
)

// String is the width as options write it, in bits.
func (w Width) String() string { return fmt.Sprint(8 * int(w)) }

// number decodes a long.
func (w Width) number(b []byte) uint64 {
	if w == Width32 {
		return uint64(le.Uint32(b))
	}
	return le.Uint64(b)
}

// Layout is what an image does not say and its reader must know.
type Layout struct {
	Width  Width
	Domain xcstream.DomainType // 0 if not known
}

// Guest is the domain type as options write it: pv or hvm; empty if it is not known.
func (l Layout) Guest() string {
	switch l.Domain {
	case xcstream.DomainPV:
		return "pv"
	case xcstream.DomainHVM:
		return "hvm"
	}
	return ""
}

// String is the layout for messages.
func (l Layout) String() string { return fmt.Sprintf("width %v, guest type %s", l.Width, l.Guest()) }

// ChunkID begins a chunk: a number of pages if positive.
type ChunkID int32

// The chunks (XC_SAVE_ID_* of xg_save_restore.h).
const (
	ChunkEnd                ChunkID = 0
	ChunkEnableVerify       ChunkID = -1
	ChunkVCPUInfo           ChunkID = -2
	ChunkIdentPT            ChunkID = -3
	ChunkVM86TSS            ChunkID = -4
	ChunkTmem               ChunkID = -5
	ChunkTmemExtra          ChunkID = -6
	ChunkTSCInfo            ChunkID = -7
	ChunkConsolePFN         ChunkID = -8
	ChunkLastCheckpoint     ChunkID = -9
	ChunkACPIIOPorts        ChunkID = -10
	ChunkViridian           ChunkID = -11
	ChunkCompressedData     ChunkID = -12
	ChunkEnableCompression  ChunkID = -13
	ChunkGenerationIDAddr   ChunkID = -14
	ChunkPagingRingPFN      ChunkID = -15
	ChunkMonitorRingPFN     ChunkID = -16
	ChunkSharingRingPFN     ChunkID = -17
	ChunkToolstack          ChunkID = -18
	ChunkIOReqServerPFN     ChunkID = -19
	ChunkNrIOReqServerPages ChunkID = -20
	ChunkX87FIPWidth        ChunkID = -21 // Xen 4.5.4 and 4.5.5
)

var chunkNames = [...]string{"END", "ENABLE_VERIFY_MODE", "VCPU_INFO", "HVM_IDENT_PT", "HVM_VM86_TSS", "TMEM", "TMEM_EXTRA",
	"TSC_INFO", "HVM_CONSOLE_PFN", "LAST_CHECKPOINT", "HVM_ACPI_IOPORTS_LOCATION", "HVM_VIRIDIAN", "COMPRESSED_DATA",
	"ENABLE_COMPRESSION", "HVM_GENERATION_ID_ADDR", "HVM_PAGING_RING_PFN", "HVM_MONITOR_RING_PFN", "HVM_SHARING_RING_PFN",
	"TOOLSTACK", "HVM_IOREQ_SERVER_PFN", "HVM_NR_IOREQ_SERVER_PAGES", "HVM_X87_FIP_WIDTH"}

// Known reports whether a writer of Xen 4.1 to 4.5 knows the chunk.
func (id ChunkID) Known() bool { return id <= maxBatch && -int64(id) < int64(len(chunkNames)) }

// String is the chunk's name in Xen's header, or its number.
func (id ChunkID) String() string {
	switch {
	case id > 0:
		return "page batch"
	case id.Known():
		return chunkNames[-id]
	}
	return fmt.Sprintf("chunk %d", int32(id))
}

// chunkParams are the HVM parameters that have a chunk of their own.
var chunkParams = map[ChunkID]uint64{
	ChunkIdentPT:            xcstream.HVMParamIdentPT,
	ChunkVM86TSS:            xcstream.HVMParamVM86TSS,
	ChunkConsolePFN:         xcstream.HVMParamConsolePFN,
	ChunkACPIIOPorts:        xcstream.HVMParamACPIIOPorts,
	ChunkViridian:           xcstream.HVMParamViridian,
	ChunkGenerationIDAddr:   xcstream.HVMParamVMGenerationIDAddr,
	ChunkPagingRingPFN:      xcstream.HVMParamPagingRingPFN,
	ChunkMonitorRingPFN:     xcstream.HVMParamMonitorRingPFN,
	ChunkSharingRingPFN:     xcstream.HVMParamSharingRingPFN,
	ChunkIOReqServerPFN:     xcstream.HVMParamIOReqServerPFN,
	ChunkNrIOReqServerPages: xcstream.HVMParamNrIOReqServerPages,
	ChunkX87FIPWidth:        xcstream.HVMParamX87FIPWidth,
}
