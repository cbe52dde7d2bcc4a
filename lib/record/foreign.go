package record

import "strings"

// foreign is what an image can be taken for by its first octets, and who takes it.
var foreign = []struct{ first, what string }{
	{"\xff\xff\xff\xff\xff\xff\xff\xff", "a libxc stream, which is for xc-restore"},
	{"LibxlFmt", "a libxl stream, which is for xl-stream unwrap"},
	{"Xen save", "an xl save file, which is for xl-stream restore or unwrap"},
	{"LinuxGue", "an image of xend, which is for convert-legacy"},
	{"libvirt-", "a save file of libvirt, which has a libxl stream behind its XML"},
	{"\x28\xb5\x2f\xfd", "compressed by zstd, which zstd -d undoes"},
	{"\x1f\x8b", "compressed by gzip, which gzip -d undoes"},
	{"\xfd7zXZ\x00", "compressed by xz, which xz -d undoes"},
	{"\x04\x22\x4d\x18", "compressed by lz4, which lz4 -d undoes"},
	{"BZh", "compressed by bzip2, which bzip2 -d undoes"},
}

// Foreign tells whoever expects something else what begins with first, of which 8 octets are looked at; "" if that is not known.
func Foreign(first []byte) string {
	for _, f := range foreign {
		if strings.HasPrefix(string(first), f.first) {
			return f.what
		}
	}
	return ""
}
