// Package control is how gvirstor talks to a running ggated-virstor: JSON over
// HTTP on a Unix socket that only its owner may open. verbs.go is the table of what
// may be asked:
//
//	GET    /v1/status                   -> Status
//	GET    /v1/volumes/NAME             -> VolumeStatus
//	POST   /v1/volumes/NAME/add         AddRequest
//	POST   /v1/volumes/NAME/remove      RemoveRequest
//	POST   /v1/volumes/NAME/stop        StopRequest -> StopResult
//	POST   /v1/volumes/NAME/identify    IdentifyRequest -> VolumeStatus
//	POST   /v1/volumes/NAME/reserve     ReserveRequest
//	POST   /v1/volumes/NAME/create      CreateRequest -> CreateResult
//	POST   /v1/volumes/NAME/quota       QuotaRequest
//	POST   /v1/volumes/NAME/resize      ResizeRequest -> ResizeResult
//	GET    /v1/volumes/NAME/snapshots   -> Snapshots
//	POST   /v1/volumes/NAME/snapshots   SnapshotRequest -> SnapshotResult
//	POST   /v1/volumes/NAME/rename-snapshot RenameSnapshotRequest
//	POST   /v1/volumes/NAME/delete      DeleteRequest -> DeleteResult
//	POST   /v1/volumes/NAME/rollback    RollbackRequest -> RollbackResult
//	POST   /v1/volumes/NAME/publish     PublishRequest -> PublishResult
//	POST   /v1/volumes/NAME/unpublish   UnpublishRequest
//	POST   /v1/volumes/NAME/diff        DiffRequest -> Diff
//	POST   /v1/volumes/NAME/read        ReadRequest -> Data
//	POST   /v1/volumes/NAME/receive     ReceiveRequest -> ReceiveResult
//	POST   /v1/volumes/NAME/write       WriteRequest
//	POST   /v1/volumes/NAME/spare       SpareRequest
//	POST   /v1/volumes/NAME/test-alert  -> AlertTest
//	POST   /v1/volumes/NAME/jobs        JobRequest -> JobStatus
//	GET    /v1/jobs/NAME                -> JobStatus
//	DELETE /v1/jobs/NAME                -> JobStatus
//	GET    /v1/clients                  -> Clients
//	POST   /v1/disconnect               DisconnectRequest
//	POST   /v1/serve                    ServeRequest -> ServeResult
//	POST   /v1/release                  ReleaseRequest
//
// and besides
//
//	GET    /v1/events                   a stream of Event, one a line
//
// NAME is a volume's name or that of one of its nodes, with or without /dev/,
// path-escaped ("virstor%2Fmydata"), or the id of a job (JobStatus). What fails
// answers an Error. Sizes are exact bytes everywhere.
package control

import (
	"fmt"
	"os"
	"path/filepath"
)

// DefaultSocket is where the daemon of the user uid listens unless it is told otherwise:
// what GVIRSTOR_CONTROL says, else a place that is root's or that user's own.
func DefaultSocket(uid int, getenv func(string) string) string {
	if path := getenv("GVIRSTOR_CONTROL"); path != "" {
		return path
	}
	if uid == 0 {
		return "/var/run/ggated-virstor.sock"
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "ggated-virstor.sock")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("ggated-virstor-%d.sock", uid))
}
