package sim

import (
	"errors"
	"io"

	"xenferry/lib/guest"
)

// startDevices starts what emulates the devices of a new domain, which without them is none.
func (s *Server) startDevices(id guest.DomID) error {
	if s.start == nil {
		return nil
	}
	info, err := s.m.Info(id)
	if err != nil {
		return err
	}
	d, err := s.start(id, guest.Spec{Name: info.Name, UUID: info.UUID, Kind: info.Kind, VCPUs: info.MaxVCPU + 1, MaxPages: info.MaxPages})
	if err != nil {
		return errors.Join(err, s.m.Destroy(id))
	}
	if d != nil {
		s.mu.Lock()
		s.devices[id] = d
		s.mu.Unlock()
	}
	return nil
}

// endDevicesOf ends the devices of a domain that is destroyed.
func (s *Server) endDevicesOf(id guest.DomID) {
	s.mu.Lock()
	d := s.devices[id]
	delete(s.devices, id)
	s.mu.Unlock()
	if d != nil {
		_ = d.Close()
	}
}

// endDevices ends all devices.
func (s *Server) endDevices() {
	s.mu.Lock()
	all := s.devices
	s.devices = map[guest.DomID]io.Closer{}
	s.mu.Unlock()
	for _, d := range all {
		_ = d.Close()
	}
}
