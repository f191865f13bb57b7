package pipeline

import (
	"encoding/binary"
	"hash/fnv"
)

// labelHash is what a stage's label adds to the key of its random numbers.
func labelHash(label string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(label))
	return h.Sum64()
}

// randKey is the ChaCha8 key of one stage's random numbers for one sample. The
// four parts stand side by side, so no two samples share a key by accident.
func randKey(seed uint64, key Key, label uint64) (k [32]byte) {
	binary.LittleEndian.PutUint64(k[0:], seed)
	binary.LittleEndian.PutUint64(k[8:], uint64(key.Epoch))
	binary.LittleEndian.PutUint64(k[16:], uint64(key.Index))
	binary.LittleEndian.PutUint64(k[24:], label)
	return k
}
