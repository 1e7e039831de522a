package geomlib

// Starter is implemented by providers that can have many requests under way without a
// goroutine for each, such as those that are reached by a network.
type Starter interface {
	// StartRead begins to read all of t.Data from t.Offset, StartWrite to write it there,
	// and they report whether they did. They do not wait. What is not begun, ReadAt and
	// WriteAt are for, which may. What began may not have been sent before Push is called.
	StartRead(t *Transfer) bool
	StartWrite(t *Transfer) bool
	// Push has what began sent. It does not wait.
	Push()
}

// Transfer is a request of a Starter, whose it is, with its Data, from when it begins until
// it ends.
type Transfer struct {
	Data   []byte
	Offset int64 // bytes
	End    TransferEnd
	Err    error  // valid when it ends
	Batch  *Batch // that it ends in, valid then; nil: in none
}

// TransferEnd is told of the end of a Transfer.
type TransferEnd interface {
	// Ended is called once, by any goroutine, and before the call that began the transfer
	// returns, too. It must not wait.
	Ended(t *Transfer)
}
