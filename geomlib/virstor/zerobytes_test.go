package virstor

import (
	"testing"
	"unsafe"
)

func TestZerosThatAProcessWritesWhenItDiesEndAtASector(t *testing.T) {
	if at := uintptr(unsafe.Pointer(&zeroBytes[0])); at%zeroAlign != 0 {
		t.Errorf("the zeros begin %d bytes behind a page's border", at%zeroAlign)
	}
	if len(zeroBytes)%zeroAlign != 0 {
		t.Errorf("%d bytes of zeros", len(zeroBytes))
	}
}
