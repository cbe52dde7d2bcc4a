package verify

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// state compares the records other than pages.
func (c *comparer) state() {
	c.policies()
	c.tsc()
	c.frames()
	c.sharedInfo()
	c.vcpus()
	c.params()
	c.context()
}

func (c *comparer) policies() {
	if a, b := xcstream.CPUIDPolicy(c.a.cpuid), xcstream.CPUIDPolicy(c.b.cpuid); !slices.Equal(a, b) {
		c.octets(xcstream.TypeX86CPUIDPolicy.String(), a.Append(nil), b.Append(nil))
	}
	if a, b := xcstream.MSRPolicy(c.a.msrs), xcstream.MSRPolicy(c.b.msrs); !slices.Equal(a, b) {
		c.octets(xcstream.TypeX86MSRPolicy.String(), a.Append(nil), b.Append(nil))
	}
}

// tsc compares mode and frequency. The time that has passed goes on, and incarnation counts restores.
func (c *comparer) tsc() {
	what := xcstream.TypeX86TSCInfo.String()
	switch a, b := c.a.tsc, c.b.tsc; {
	case (a == nil) != (b == nil):
		c.differ(what, "there: %v; %v", a != nil, b != nil)
	case a != nil && (a.Mode != b.Mode || a.KHz != b.KHz):
		c.differ(what, "mode %d, %d kHz; mode %d, %d kHz", a.Mode, a.KHz, b.Mode, b.KHz)
	}
}

func (c *comparer) frames() {
	what := xcstream.TypeX86PVP2MFrames.String()
	if c.a.maxPFN != c.b.maxPFN {
		c.differ(what, "last PFN %#x; %#x", c.a.maxPFN, c.b.maxPFN)
		return
	}
	for _, place := range unionOf(c.a.frames, c.b.frames, cmp.Compare) {
		a, okA := c.a.frames[place]
		b, okB := c.b.frames[place]
		if a != b || okA != okB {
			c.differ(what, "frame %d: PFN %#x (%v); %#x (%v)", place, a, okA, b, okB)
		}
	}
}

// unionOf is the keys of two maps in order.
func unionOf[K comparable, V any](a, b map[K]V, order func(a, b K) int) []K {
	keys := slices.Collect(maps.Keys(a))
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, order)
	return keys
}

func (c *comparer) sharedInfo() {
	what := xcstream.TypeSharedInfo.String()
	if c.a.shared == nil || c.b.shared == nil {
		c.octets(what, c.a.shared, c.b.shared)
		return
	}
	width := c.a.info.Width
	spans := slices.Clone(pvExempts[width].sharedInfo)
	at := p2mCR3(width)
	if a, b := word(c.a.shared[at:], width), word(c.b.shared[at:], width); a != 0 && b != 0 {
		fa, restA := splitCR3(width, a)
		fb, restB := splitCR3(width, b)
		if !c.sameFrame(fa, fb) || restA != restB {
			c.differ(what, "p2m_cr3: %#x, %s; %#x, %s", a, c.pa.describe(fa), b, c.pb.describe(fb))
		}
		spans = append(spans, span{offset: at, size: int(width)})
	}
	c.octets(what, without(c.a.shared, spans), without(c.b.shared, spans))
}

func (c *comparer) vcpus() {
	order := func(a, b vcpuKey) int { return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.typ, b.typ)) }
	for _, k := range unionOf(c.a.vcpus, c.b.vcpus, order) {
		a, b := c.a.vcpus[k], c.b.vcpus[k]
		if k.typ == xcstream.TypeX86PVVCPUBasic {
			spans := pvExempts[c.a.info.Width].context
			a, b = without(a, spans), without(b, spans)
		}
		c.octets(fmt.Sprintf("%v of vCPU %d", k.typ, k.id), a, b)
	}
}

func (c *comparer) params() {
	for _, i := range unionOf(c.a.params, c.b.params, cmp.Compare) { // savers leave out those that are zero
		if a, b := c.a.params[i], c.b.params[i]; a != b {
			c.differ("HVM parameter "+xcstream.HVMParamName(i), "%#x; %#x", a, b)
		}
	}
}

// contextKey names an entry of an HVM context.
type contextKey struct {
	code     xcstream.HVMCode
	instance uint16
}

func (c *comparer) context() {
	a, b := contextByKey(c.a.context), contextByKey(c.b.context)
	order := func(a, b contextKey) int {
		return cmp.Or(cmp.Compare(a.code, b.code), cmp.Compare(a.instance, b.instance))
	}
	for _, k := range unionOf(a, b, order) {
		c.contextEntry(k, a[k], b[k])
	}
}

func contextByKey(entries []xcstream.HVMEntry) map[contextKey]*xcstream.HVMEntry {
	m := map[contextKey]*xcstream.HVMEntry{}
	for i, e := range entries {
		m[contextKey{e.Code, e.Instance}] = &entries[i]
	}
	return m
}

func (c *comparer) contextEntry(k contextKey, a, b *xcstream.HVMEntry) {
	what := fmt.Sprintf("HVM_CONTEXT, %v %d", k.code, k.instance)
	if a == nil || b == nil {
		c.differ(what, "there: %v; %v", a != nil, b != nil)
		return
	}
	da, db := a.Data, b.Data
	if k.code == xcstream.HVMCPU {
		da, db = without(da, hvmCPUExempt(len(da))), without(db, hvmCPUExempt(len(db)))
	}
	// A newer Xen takes the shorter entry of an older one for one with zeros behind, and then writes all of it.
	switch {
	case extends(a, b, c.b.release):
		da = append(bytes.Clone(da), make([]byte, len(db)-len(da))...)
	case extends(b, a, c.a.release):
		db = append(bytes.Clone(db), make([]byte, len(da)-len(db))...)
	}
	c.octets(what, da, db)
}

// extends reports whether Xen of release makes of short, at loading, an entry as long as long.
func extends(short, long *xcstream.HVMEntry, release guest.Release) bool {
	return len(short.Data) < len(long.Data) && len(long.Data) == xcstream.HVMLength(long.Code, release) && short.LoadableBy(release) == nil
}
