package machine

// View is one domain as its own guest sees the hypervisor: it implements guestos.Hypervisor. It stays valid until the
// domain is destroyed; after that every operation fails and Page gives nil.
type View struct {
	m *Machine
	d *domain
}
