package ondisk

// EncodeUnchecked gives the contents of a directory that Encode would refuse.
func (d *Directory) EncodeUnchecked() []byte { return d.encode() }
