package gpu

import (
	"github.com/apache/arrow/go/v17/arrow/memory"

	"sluice/net"
	"sluice/pipeline"
)

var (
	_ pipeline.PoolMemory = (*Train)(nil)
	_ pipeline.PoolMemory = (*Evaluate)(nil)
	_ pipeline.PoolMemory = (*Extract)(nil)
)

// PoolMemory is memory for batches that the device copies from by itself, if the engine
// has such; nil for any memory.
func (t *Train) PoolMemory() memory.Allocator { return poolMemory(t.engine) }

// PoolMemory is that of Train.
func (v *Evaluate) PoolMemory() memory.Allocator { return poolMemory(v.engine) }

// PoolMemory is that of Train.
func (x *Extract) PoolMemory() memory.Allocator { return poolMemory(x.engine) }

func poolMemory(e net.Engine) memory.Allocator {
	if p, ok := e.(pipeline.PoolMemory); ok {
		return p.PoolMemory()
	}
	return nil
}
