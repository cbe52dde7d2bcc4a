package cli

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// ParseSize reads a size in octets: a number with K, M, G or T (powers of 1024) behind it, or none.
func ParseSize(s string) (uint64, error) {
	digits := strings.TrimRight(s, "kKmMgGtTiIbB")
	shift, ok := map[string]uint{"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s[len(digits):]), "b"), "i")]
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || !ok || bits.Len64(n)+int(shift) > 64 {
		return 0, fmt.Errorf("%q is not a size such as 512M", s)
	}
	return n << shift, nil
}
