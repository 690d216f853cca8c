package boltstore

import "syscall"

// Types of file systems, as statfs(2) has them, that do not keep what a disk keeps.
var places = map[uint32]string{
	0x6969:     network, // NFS
	0x517b:     network, // SMB
	0xff534d42: network, // CIFS
	0xfe534d42: network, // SMB 2
	0x01021997: network, // 9p
	0x00c36400: network, // Ceph
	0x5346414f: network, // AFS
	0x73757245: network, // Coda
	0x0bd00bd0: network, // Lustre
	0x65735546: "FUSE: it is up to the program behind it whether an fsync reaches a disk, and whether two hosts can lock the directory at once",
	0x786f4256: "a folder of a virtual machine's host: an fsync may not reach its disk",
	0x794c7630: "an overlay, such as a container's own layer: it is gone with the container, and slow",
	0x01021994: "memory: it is gone when the machine restarts",
	0x858458f6: "memory: it is gone when the machine restarts",
}

const network = "a network's: an fsync may not reach the server's disk, and two hosts may open the store at once if locks are not shared, which damages it"

// doubts says why the file system of dir is no good place for a store; "" if nothing
// is known against it.
func doubts(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return ""
	}
	return places[uint32(s.Type)]
}
