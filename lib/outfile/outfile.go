// Package outfile writes files that have a name only once they are complete. What was there before stays until then, even
// if it is the input; and whoever is killed before leaves nothing, unless the file system has no files without a name.
package outfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// File is being written.
type File struct {
	*os.File
	path   string // where it will be, links followed
	beside string // its name until then, where it must have one
	direct bool   // it is what was at path, such as a pipe
	done   bool
}

// Create begins a file that is to be at path, of a mode that the umask reduces. What is there and no regular file is opened as
// it is.
func Create(path string, mode os.FileMode) (*File, error) {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		file, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY, 0)
		return &File{File: file, path: path, direct: true}, err
	}
	path, err := follow(path)
	if err != nil {
		return nil, err
	}
	f := &File{path: path}
	fd, err := unix.Open(filepath.Dir(path), unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, uint32(mode.Perm()))
	if err == nil {
		f.File = os.NewFile(uintptr(fd), path)
		return f, nil
	}
	f.File, err = hidden(path, func(name string) (*os.File, error) {
		return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	})
	if err == nil {
		f.beside = f.Name()
	}
	return f, err
}

// follow is where path leads: of a link that leads to nothing, the name that it has.
func follow(path string) (string, error) {
	const maxLinks = 40 // as Linux has it
	for range maxLinks {
		target, err := os.Readlink(path)
		if err != nil {
			return path, nil
		}
		if !filepath.IsAbs(target) {
			folder, _ := filepath.Split(path)
			target = folder + target // not cleaned: what .. is depends on links
		}
		path = target
	}
	return "", &os.PathError{Op: "open", Path: path, Err: unix.ELOOP}
}

// hidden calls make with names beside path until one is not taken.
func hidden[T any](path string, make func(name string) (T, error)) (T, error) {
	for n := os.Getpid(); ; n++ {
		v, err := make(filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d", filepath.Base(path), n)))
		if !errors.Is(err, os.ErrExist) {
			return v, err
		}
	}
}

// Path is where the file will be.
func (f *File) Path() string { return f.path }

// Lasting reports whether the file is a regular one, and takes its place by Commit.
func (f *File) Lasting() bool { return !f.direct }

// Commit puts the file, which is complete, to its place.
func (f *File) Commit() error { return f.CommitTo(f.path) }

// CommitTo puts the file to another place in the same folder. What is there goes only when the file is on the disk.
func (f *File) CommitTo(path string) error {
	if f.direct || f.done {
		return nil
	}
	if _, err := os.Lstat(path); err == nil {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := f.place(path); err != nil {
		return err
	}
	f.done = true
	return nil
}

func (f *File) place(path string) error {
	if f.beside != "" {
		return os.Rename(f.beside, path)
	}
	self := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	link := func(name string) error {
		if err := unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW); err != nil {
			return &os.LinkError{Op: "link", Old: self, New: name, Err: err}
		}
		return nil
	}
	err := link(path)
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	// A link cannot take another's place, only a rename can.
	name, err := hidden(path, func(name string) (string, error) { return name, link(name) })
	if err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// Discard closes the file, and removes it unless it was committed.
func (f *File) Discard() {
	_ = f.Close()
	if f.beside != "" && !f.done {
		_ = os.Remove(f.beside)
	}
}
