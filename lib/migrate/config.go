package migrate

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"xenferry/lib/guest"
)

// maxMemConstant is what libxl adds to a domain's memory for its own purposes, in KiB (LIBXL_MAXMEM_CONSTANT).
const maxMemConstant = 1024

// config is the part of a libxl_domain_config, as JSON, that a domain without a toolstack's devices needs.
type config struct {
	Create struct {
		Type string    `json:"type"`
		Name string    `json:"name"`
		UUID uuid.UUID `json:"uuid"`
	} `json:"c_info"`
	Build struct {
		MaxVCPUs  uint32 `json:"max_vcpus"`
		Avail     []int  `json:"avail_vcpus,omitempty"`
		MaxMem    uint64 `json:"max_memkb"`
		TargetMem uint64 `json:"target_memkb"`
		VideoMem  uint64 `json:"video_memkb,omitempty"`
	} `json:"b_info"`
}

// Config is the configuration of a domain that no toolstack has one of, as libxl would write it.
func Config(d guest.Info) ([]byte, error) {
	var c config
	c.Create.Name, c.Create.UUID, c.Create.Type = d.Name, d.UUID, d.Kind.String()
	if d.Kind.PV() {
		c.Create.Type = "pv"
	}
	c.Build.MaxVCPUs = d.MaxVCPU + 1
	for i := range int(c.Build.MaxVCPUs) {
		c.Build.Avail = append(c.Build.Avail, i)
	}
	c.Build.MaxMem = d.MaxPages*(guest.PageSize/1024) - maxMemConstant
	c.Build.TargetMem = c.Build.MaxMem
	b, err := json.MarshalIndent(c, "", "    ")
	return append(b, '\n'), err
}

// withoutDevices refuses a configuration of a domain that needs a toolstack: an emulator, disks, interfaces and the like. A
// host of ours makes none of them, and a guest that comes back without its disks has lost them.
func withoutDevices(b []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	for _, name := range []string{"disks", "nics", "pcidevs", "rdms", "dtdevs", "vfbs", "vkbs", "vtpms", "p9s", "pvcallsifs", "vdispls",
		"vsnds", "usbctrls", "usbdevs", "channels", "virtios"} {
		var all []json.RawMessage
		if json.Unmarshal(members[name], &all) == nil && len(all) > 0 {
			return fmt.Errorf("the domain has %s, which a toolstack makes: use xl restore, or xl migrate-receive, with our helper", name)
		}
	}
	if s, err := SpecOf(b); err == nil && s.Kind == guest.HVM {
		return fmt.Errorf("an HVM domain has an emulator, which a toolstack starts: use xl restore, or xl migrate-receive, with our helper")
	}
	return nil
}

// identity is the UUID that a configuration gives its domain; uuid.Nil if it gives none, or is none of libxl's as JSON.
func identity(b []byte) uuid.UUID {
	var c config
	if json.Unmarshal(b, &c) != nil {
		return uuid.Nil
	}
	return c.Create.UUID
}

// SpecOf is what it takes to make the domain of a configuration. A PV domain is of 64 bits until its stream says otherwise.
func SpecOf(b []byte) (guest.Spec, error) {
	var c config
	if err := json.Unmarshal(b, &c); err != nil {
		return guest.Spec{}, fmt.Errorf("configuration: %w", err)
	}
	kinds := map[string]guest.Kind{"pv": guest.PV64, "pvh": guest.PVH, "hvm": guest.HVM}
	kind, ok := kinds[strings.ToLower(c.Create.Type)]
	switch {
	case !ok:
		return guest.Spec{}, fmt.Errorf("configuration: type %q is none of pv, pvh and hvm", c.Create.Type)
	case c.Build.MaxVCPUs == 0 || c.Build.MaxMem == 0:
		return guest.Spec{}, fmt.Errorf("configuration: %d vCPUs and %d KiB of memory", c.Build.MaxVCPUs, c.Build.MaxMem)
	case c.Build.MaxMem > 1<<40:
		return guest.Spec{}, fmt.Errorf("configuration: %d KiB of memory", c.Build.MaxMem)
	}
	if c.Create.UUID == uuid.Nil {
		c.Create.UUID = uuid.New()
	}
	return guest.Spec{Name: c.Create.Name, UUID: c.Create.UUID, Kind: kind, VCPUs: c.Build.MaxVCPUs,
		MaxPages: (c.Build.MaxMem + maxMemConstant) / (guest.PageSize / 1024)}, nil
}
