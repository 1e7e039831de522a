package main

import (
	"strings"
	"testing"
)

func TestAVolumeOfTheKernelClassPointsToItsUtility(t *testing.T) {
	if got := unknown("old", true).Error(); !strings.Contains(got, "/sbin/gvirstor knows it") {
		t.Errorf("with a device: %s", got)
	}
	if got := unknown("old", false).Error(); got != "Don't know anything about 'old'" {
		t.Errorf("without: %s", got)
	}
}
