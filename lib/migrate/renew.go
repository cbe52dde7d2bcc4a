package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"xenferry/lib/guest"
)

// setIdentity gives the domain of a configuration another name and UUID. All else stays, octet for octet.
func setIdentity(b []byte, name string, id uuid.UUID) ([]byte, error) {
	b, err := setMember(b, name, "c_info", "name")
	if err != nil {
		return nil, err
	}
	return setMember(b, id.String(), "c_info", "uuid")
}

// dropNumber takes out the number that a domain was made with: who restores it elsewhere, or beside others, gives it another.
func dropNumber(b []byte) ([]byte, error) { return dropMember(b, "c_info", "domid") }

// Now is what libxl keeps of a domain elsewhere than in the configuration from when the domain was made. What is nil or 0 is
// not known.
type Now struct {
	VCPUs     []int  // in ascending order: those of the emulator, or, without one, those that are online
	MaxMemory uint64 // in KiB
	Memory    uint64 // what it was last told to have, in KiB, without what libxl counts otherwise
	// Devices are the ones that are there: those of a member of the configuration by what sets them apart.
	Devices map[string][]string
}

// deviceKinds are the devices that come and go: the member of a configuration, what tells two of them apart there, the
// names of their kind in xenstore, and the node below a device that has the same to say, if its own name does not.
var deviceKinds = []struct {
	member, identity string
	kinds            []string
	node             string
}{
	{"disks", "vdev", []string{"vbd", "virtio_disk"}, "dev"},
	{"nics", "devid", []string{"vif"}, ""},
}

// Renew is a configuration from when its domain was made as it is now, as far as d and now know. It does what libxl does for xl save,
// but for the parameters of the scheduler, the medium of a drive, and devices other than disks and network interfaces.
//
// Source: libxl_domain.c, retrieve_domain_configuration_end; xl_saverestore.c, save_domain_core_begin for the number.
func Renew(b []byte, d guest.Info, now Now) ([]byte, error) {
	var old config
	if err := json.Unmarshal(b, &old); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	b, err := setIdentity(b, d.Name, d.UUID)
	if err == nil {
		b, err = dropNumber(b)
	}
	if err == nil && len(now.VCPUs) > 0 {
		// libxl makes its bitmap as long as the last number of the array says.
		b, err = putMember(b, slices.Sorted(slices.Values(now.VCPUs)), "b_info", "avail_vcpus")
	}
	if err == nil && now.Memory != 0 {
		b, err = putMember(b, now.Memory+old.beside(), "b_info", "target_memkb")
	}
	if err == nil && now.MaxMemory != 0 {
		b, err = putMember(b, now.MaxMemory, "b_info", "max_memkb")
	}
	for _, k := range deviceKinds {
		there, known := now.Devices[k.member]
		if err == nil && known {
			b, err = keepDevices(b, k.member, k.identity, there)
		}
	}
	return b, err
}

// beside is what a configuration's target has beside the target in xenstore, in KiB: the memory of the video card, and
// what libxl takes off for itself where not all memory is there at first (libxl__get_targetmem_fudge).
func (c *config) beside() uint64 {
	more := c.Build.VideoMem
	if c.Create.Type == "hvm" && c.Build.MaxMem > c.Build.TargetMem {
		more += maxMemConstant
	}
	return more
}

// keepDevices drops the devices of a member whose identity is not among those that are there.
func keepDevices(b []byte, member, identity string, there []string) ([]byte, error) {
	begin, end, err := place(b, member)
	if errors.Is(err, errNoMember) {
		return b, nil
	}
	var all, kept []json.RawMessage
	if err == nil {
		err = json.Unmarshal(b[begin:end], &all)
	}
	if err != nil {
		return nil, fmt.Errorf("configuration: %s: %w", member, err)
	}
	for _, device := range all {
		var has map[string]any
		if err := json.Unmarshal(device, &has); err != nil {
			return nil, fmt.Errorf("configuration: %s: %w", member, err)
		}
		if slices.Contains(there, fmt.Sprint(has[identity])) {
			kept = append(kept, device)
		}
	}
	switch len(kept) {
	case len(all):
		return b, nil
	case 0:
		return dropMember(b, member)
	}
	return setMember(b, kept, member)
}

// store is as much of xenstore as finding out about a domain takes.
type store interface {
	// Read is a node's value, and Directory the names right below it. What is not there matches fs.ErrNotExist.
	Read(ctx context.Context, path string) (string, error)
	Directory(ctx context.Context, path string) ([]string, error)
}

// nowIn is what xenstore says of a domain. cpus are the emulator's vCPUs, nil for a domain without one: QEMU takes a state
// only of as many as it has itself, whether the guest uses them or not.
func nowIn(ctx context.Context, s store, d guest.Info, cpus func(context.Context) ([]int, error)) (now Now, err error) {
	base := "/local/domain/" + strconv.Itoa(int(d.ID))
	var errs [4]error
	if now.VCPUs, errs[0] = online(ctx, s, base, int(d.MaxVCPU)); cpus != nil {
		now.VCPUs, errs[0] = cpus(ctx)
	}
	now.Memory, errs[1] = kib(ctx, s, base+"/memory/target")
	now.MaxMemory, errs[2] = kib(ctx, s, base+"/memory/static-max")
	now.Devices, errs[3] = devices(ctx, s, d.ID)
	return now, errors.Join(errs[:]...)
}

// optional is a node's value, nothing if it is not there.
func optional(ctx context.Context, s store, path string) (string, error) {
	value, err := s.Read(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return value, err
}

// online are the vCPUs that a domain may use.
func online(ctx context.Context, s store, base string, last int) (all []int, err error) {
	for i := range last + 1 {
		value, err := optional(ctx, s, fmt.Sprintf("%s/cpu/%d/availability", base, i))
		if err != nil {
			return nil, err
		}
		if value == "online" {
			all = append(all, i)
		}
	}
	return all, nil
}

// kib is a size in xenstore, 0 if it is not there.
func kib(ctx context.Context, s store, path string) (uint64, error) {
	value, err := optional(ctx, s, path)
	if err != nil || value == "" {
		return 0, err
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// devices are those of deviceKinds that libxl has in xenstore.
func devices(ctx context.Context, s store, id guest.DomID) (map[string][]string, error) {
	found := map[string][]string{}
	for _, k := range deviceKinds {
		found[k.member] = nil
		for _, kind := range k.kinds {
			base := fmt.Sprintf("/libxl/%d/device/%s", id, kind)
			all, err := s.Directory(ctx, base)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			for _, name := range all {
				if k.node != "" {
					if name, err = optional(ctx, s, base+"/"+name+"/"+k.node); err != nil {
						return nil, err
					}
				}
				found[k.member] = append(found[k.member], name)
			}
		}
	}
	return found, nil
}
