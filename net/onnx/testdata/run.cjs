// Runs an ONNX model in onnxruntime: node run.cjs MODEL IMAGES N H W
// IMAGES is a file of N x 3 x H x W float32, little endian. Prints the outputs as
// JSON. onnxruntime-node is found beside the working folder, in node_modules.
const { createRequire } = require("node:module");
const fs = require("node:fs");
const ort = createRequire(process.cwd() + "/")("onnxruntime-node");

async function main([model, images, ...dims]) {
  const bytes = fs.readFileSync(images);
  const numbers = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const [n, h, w] = dims.map(Number);
  const session = await ort.InferenceSession.create(model);
  const results = await session.run({ images: new ort.Tensor("float32", numbers, [n, 3, h, w]) });
  const out = {};
  for (const name of session.outputNames) {
    out[name] = { dims: results[name].dims, data: Array.from(results[name].data) };
  }
  console.log(JSON.stringify(out));
}

main(process.argv.slice(2)).catch((err) => {
  console.error(err);
  process.exit(1);
});
