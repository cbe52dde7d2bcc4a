package verify

import (
	"errors"

	"xenferry/lib/guest"
	"xenferry/lib/record"
)

// Report is what a stream holds, as far as it was read. As JSON its member names are stable: they may grow in number, and
// neither vanish nor change their meaning. Members of a layer that the stream has not are left out.
type Report struct {
	Valid    bool     `json:"valid"`
	Error    *Finding `json:"error,omitempty"` // why not valid
	Octets   uint64   `json:"octets"`          // taken from the input
	XL       *XLInfo  `json:"xl,omitempty"`
	LibXL    *XLImage `json:"libxl,omitempty"`
	LibXC    *Image   `json:"libxc,omitempty"`
	Legacy   *Legacy  `json:"legacy,omitempty"`   // an image that must be converted first
	Handover []string `json:"handover,omitempty"` // what the source of a migration said behind the stream
	Warnings Findings `json:"warnings"`
}

// Layers is the formats that the stream has, from the outside in.
func (r *Report) Layers() (layers []Layer) {
	if r.XL != nil {
		layers = append(layers, XL)
	}
	if r.LibXL != nil {
		layers = append(layers, LibXL)
	}
	if r.LibXC != nil {
		layers = append(layers, LibXC)
	}
	return layers
}

// Finding is something wrong, or unusual, at a place of the stream.
type Finding struct {
	Offset uint64 `json:"offset"` // of the header or record, in the whole input
	Record string `json:"record"`
	Reason string `json:"reason"`
	err    error
}

// Err is the finding as the error that it was.
func (f *Finding) Err() error { return f.err }

func findingOf(err error) Finding {
	f := Finding{Reason: err.Error(), err: err}
	var at *record.Error
	if errors.As(err, &at) {
		f.Offset, f.Record, f.Reason = at.Offset, at.Record, at.Err.Error()
	}
	return f
}

// maxFindings is how many findings are kept; the others are only counted.
const maxFindings = 100

// Findings is the first of many findings, and how many there are.
type Findings struct {
	Count uint64    `json:"count"`
	First []Finding `json:"first"` // at most 100
}

func (f *Findings) add(finding Finding) {
	f.Count++
	if len(f.First) < maxFindings {
		f.First = append(f.First, finding)
	}
}

// Records counts the records of a type.
type Records struct {
	Type   uint32 `json:"type"`
	Name   string `json:"name"`
	Count  uint64 `json:"count"`
	Octets uint64 `json:"octets"` // on the wire: headers, bodies, padding
}

// maxRecordTypes is how many types a table holds. Only unknown optional records can be more: they share the last row.
const maxRecordTypes = 64

// recordTable counts records by type, in the order of first appearance.
type recordTable []Records

func (t *recordTable) add(typ uint32, name string, length uint32) {
	octets := record.HeaderSize + record.Header{Length: length}.Padded()
	for i := range *t {
		if row := &(*t)[i]; row.Type == typ || i == maxRecordTypes-1 {
			row.Count++
			row.Octets += octets
			return
		}
	}
	if len(*t) == maxRecordTypes-1 {
		name = "others"
	}
	*t = append(*t, Records{typ, name, 1, octets})
}

// XLInfo is the xl layer: the header of a save file or migration.
type XLInfo struct {
	Endian        string `json:"endian"` // little or big: the order of the octets in its numbers
	JSON          bool   `json:"json"`   // the configuration is JSON, else text of xl.cfg
	OptionalFlags uint32 `json:"optional_flags"`
	ConfigOctets  int    `json:"config_octets"` // of the domain's configuration, without its final NUL
	Name          string `json:"name,omitempty"`
	UUID          string `json:"uuid,omitempty"`
	Type          string `json:"type,omitempty"` // as libxl calls it: pv, hvm or pvh
}

// XLImage is the libxl layer.
type XLImage struct {
	Offset      uint64      `json:"offset"` // of its header
	Version     uint32      `json:"version"`
	Endian      string      `json:"endian"`    // little or big: the order of the octets in its records' numbers
	Converted   bool        `json:"converted"` // from a legacy stream
	Records     recordTable `json:"records"`
	Checkpoints uint64      `json:"checkpoints"` // complete ones
	Emulator    string      `json:"emulator,omitempty"`
}

// Image is the libxc layer.
type Image struct {
	Offset      uint64      `json:"offset"` // of its header
	Version     uint32      `json:"version"`
	DomainType  string      `json:"domain_type"` // as the specification calls it
	Guest       string      `json:"guest"`       // pv64, pv32, hvm, pvh, or "hvm or pvh", "pv" where nothing tells
	Xen         string      `json:"xen"`         // release of the saver; 0.x: converted from a legacy stream
	Records     recordTable `json:"records"`
	Pages       Pages       `json:"pages"`
	RoundCount  uint64      `json:"round_count"`
	Rounds      []Round     `json:"rounds"` // at most the first 1000
	Checkpoints uint64      `json:"checkpoints"`
	MaxPFN      *uint64     `json:"max_pfn,omitempty"`    // PV: highest that X86_PV_P2M_FRAMES speak of
	P2MFrames   uint64      `json:"p2m_frames,omitempty"` // PV
	CPUIDLeaves int         `json:"cpuid_leaves"`
	MSRs        int         `json:"msrs"` // of the policy
	TSC         *TSC        `json:"tsc,omitempty"`
	VCPUs       []VCPU      `json:"vcpus,omitempty"` // PV, ascending
	HVMContext  *HVMContext `json:"hvm_context,omitempty"`
	HVMParams   []HVMParam  `json:"hvm_params,omitempty"` // in the order of first appearance; the last value
	Domain      *guest.Spec `json:"domain,omitempty"`     // of our optional record XENFERRY_DOMAIN
}

// Pages counts the entries of all PAGE_DATA.
type Pages struct {
	Entries    uint64      `json:"entries"`
	WithData   uint64      `json:"with_data"`
	Zero       uint64      `json:"zero"` // of those with data
	HighestPFN uint64      `json:"highest_pfn"`
	Types      []PageCount `json:"types"` // those that appear, by number
}

// PageCount counts the entries of a page type.
type PageCount struct {
	Type  string `json:"type"`
	Count uint64 `json:"count"`
}

// Round is a run of PAGE_DATA with ascending PFNs, one pass of the saver over the guest's memory. The next begins where PFNs
// start again from below, at VERIFY, and at CHECKPOINT.
type Round struct {
	Offset   uint64 `json:"offset"` // of its first PAGE_DATA
	Entries  uint64 `json:"entries"`
	WithData uint64 `json:"with_data"`
	Zero     uint64 `json:"zero"`
	Verify   bool   `json:"verify"` // behind VERIFY
}

// TSC is X86_TSC_INFO.
type TSC struct {
	Mode        uint32 `json:"mode"`
	KHz         uint32 `json:"khz"`
	NSec        uint64 `json:"nsec"`
	Incarnation uint32 `json:"incarnation"`
}

// VCPU says which state a PV vCPU has, in octets of each record's context; 0 for none.
type VCPU struct {
	ID       uint32 `json:"id"`
	Basic    int    `json:"basic"`
	Extended int    `json:"extended"`
	XSave    int    `json:"xsave"`
	MSRs     int    `json:"msrs"`
}

// HVMContext is what HVM_CONTEXT holds.
type HVMContext struct {
	Octets  int          `json:"octets"`
	Entries []HVMEntries `json:"entries"` // by typecode
}

// HVMEntries counts the entries of a typecode.
type HVMEntries struct {
	Code   uint16 `json:"code"`
	Name   string `json:"name"`
	Count  int    `json:"count"`
	Octets int    `json:"octets"` // of contents, without descriptors
}

// HVMParam is one HVM parameter.
type HVMParam struct {
	Index uint64 `json:"index"`
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}
