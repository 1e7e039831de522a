package ondisk_test

import (
	"encoding/json"
	"testing"

	"github.com/gvirstor/gvirstor/ondisk"
)

func TestAVolumeIDIsEightHexadecimalDigitsInJSON(t *testing.T) {
	for id, want := range map[ondisk.VolumeID]string{0: `"00000000"`, 7: `"00000007"`, 0xdeadbeef: `"deadbeef"`} {
		b, err := json.Marshal(id)
		if err != nil || string(b) != want {
			t.Errorf("%x is %s, %v", uint32(id), b, err)
		}
		var back ondisk.VolumeID
		if err := json.Unmarshal(b, &back); err != nil || back != id {
			t.Errorf("%s is read as %x, %v", b, uint32(back), err)
		}
	}
	for _, wrong := range []string{`7`, `"7"`, `"0000000g"`, `"000000007"`, `""`, `"-0000007"`} {
		var id ondisk.VolumeID
		if err := json.Unmarshal([]byte(wrong), &id); err == nil {
			t.Errorf("%s is read as %x", wrong, uint32(id))
		}
	}
}
