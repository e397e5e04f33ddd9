#include "checkpoint/torch_file.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>

#include <cstdlib>

#include "checkpoint/checkpoint.h"
#include "checkpoint/pickle_bytes.h"
#include "checkpoint/safetensors.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

using namespace pickle_bytes;

const std::string six = floats({0, 1, 2, 3, 4, 5});

// Two tensors that share one storage: all of it, and its transpose's last row.
Entries shared_storage(const std::string& more = "") {
  return {{"a", tensor(storage("0", 6, "FloatStorage", more), 0, {3, 2}, {1, 3})},
          {"b", tensor(storage("0", 6, "FloatStorage", more), 2, {2}, {3})}};
}

std::string good_archive() {
  return archive({{"m/data.pkl", pickle(dict(shared_storage()))}, {"m/byteorder", "little"}, {"m/data/0", six}});
}

std::string refusal(const std::string& bytes) {
  const TemporaryFolder folder;
  const std::string path = folder.write("x.bin", bytes);
  const std::string message = error_of<std::runtime_error>([&] { TorchFile{path}; });
  EXPECT_TRUE(message.starts_with(path)) << message;
  return std::string("F").append(message, path.size());
}

void expect_shared(const TorchFile& file) {
  const at::Tensor all = at::arange(6, at::kFloat).view({2, 3});
  EXPECT_TRUE(file.view("a").is_contiguous());
  EXPECT_TRUE(at::equal(file.view("a"), all.t()));
  EXPECT_TRUE(at::equal(file.view("b"), all.select(1, 2)));
  EXPECT_EQ(file.info("a").shape, (std::vector<int64_t>{3, 2}));
}

TEST(TorchFile, reads_views_of_one_storage_from_an_archive_and_from_a_stream) {
  const TemporaryFolder folder;
  expect_shared(TorchFile(folder.write("zip.bin", good_archive())));
  expect_shared(TorchFile(folder.write("stream.bin", stream(shared_storage("N"), {{"0", six, 6}}))));
  const TorchFile empty(folder.write(
      "empty.bin", stream({{"e", tensor(storage("0", 0, "FloatStorage", "N"), 0, {0, 3}, {3, 1})}}, {{"0", "", 0}})));
  EXPECT_EQ(empty.view("e").sizes(), (std::vector<int64_t>{0, 3}));
}

TEST(TorchFile, refuses_archives_by_name) {
  const std::string state = pickle(dict(shared_storage()));
  EXPECT_EQ(refusal("hello"), "F: 5 bytes that torch.save did not write: neither a zip archive nor a stream");
  EXPECT_EQ(refusal(""), "F: 0 bytes that torch.save did not write: neither a zip archive nor a stream");
  EXPECT_EQ(refusal(archive({{"m/data.pkl", state}}, 8)),
            "F: zip entry \"m/data.pkl\" is compressed or encrypted; torch.save stores plainly");
  EXPECT_EQ(refusal(archive({{"m/x", state}})), "F: no data.pkl in the archive, not written by torch.save");
  EXPECT_EQ(refusal(archive({{"m/data.pkl", state}, {"m/byteorder", "big"}, {"m/data/0", six}})),
            "F: byte order \"big\", only \"little\" is read");
  EXPECT_EQ(refusal(archive({{"m/data.pkl", state}})), "F: no entry \"m/data/0\" in the archive");
  EXPECT_EQ(refusal(archive({{"m/data.pkl", state}, {"m/data/0", six.substr(1)}})),
            "F: tensor \"a\": a storage of 6 elements of 4 bytes, but 23 bytes are there");
  EXPECT_EQ(refusal(archive({{"m/data.pkl", pickle(global("os", "system"))}})),
            "F: pickle: \"os.system\" is not one of the globals that tensors need");
  EXPECT_EQ(refusal(archive({{"m/data.pkl", std::string((16 << 20) + 1, '.')}})),
            "F: a pickle of 16777217 bytes, at most 16777216 are read");
}

TEST(TorchFile, refuses_streams_by_name) {
  const Entries state = shared_storage("N");
  EXPECT_EQ(refusal(stream(state, {{"0", six, 6}}, false)),
            "F: pickle: big-endian byte order, only little-endian is read");
  EXPECT_EQ(refusal(stream(state, {{"0", six, 6}}, true, 1002)), "F: pickle: version 1002 of the stream, 1001 is read");
  EXPECT_EQ(refusal(stream(state, {})), "F: pickle: entry \"a\": its storage \"0\" is not in the file");
  EXPECT_EQ(refusal(stream(state, {{"1", six, 6}})), "F: pickle: no tensor says what storage \"1\" is");
  EXPECT_EQ(refusal(stream(state, {{"0", six, 5}})), "F: pickle: storage \"0\" has 5 elements, its tensors say 6");
  EXPECT_EQ(refusal(stream(state, {{"0", six.substr(1), 6}})),
            "F: pickle: storage \"0\": 6 elements of 4 bytes, but 23 bytes are left");
  EXPECT_EQ(refusal(stream(state, {{"0", six, 6}, {"0", six, 6}})), "F: pickle: storage \"0\" is listed twice");
}

// Every truncation is refused; every changed byte gives a line with the file's name, or tensors of few elements.
TEST(TorchFile, hostile_bytes_are_refused_or_read) {
  const TemporaryFolder folder;
  const std::string path = folder / "x.bin";
  for (const std::string& good : {good_archive(), stream(shared_storage("N"), {{"0", six, 6}})}) {
    int refused = 0, read = 0;
    const auto try_bytes = [&](const std::string& bytes) {
      write_bytes(path, bytes);
      try {
        const TorchFile file(path);
        for (const TensorInfo& info : file.tensors()) EXPECT_LE(file.view(info.name).numel(), 6);
        ++read;
      } catch (const std::runtime_error& error) {
        EXPECT_TRUE(std::string_view(error.what()).starts_with(path)) << error.what();
        ++refused;
      }
    };
    for (size_t size = 0; size < good.size(); ++size) try_bytes(good.substr(0, size));
    EXPECT_EQ(read, 0) << "no truncated file is whole";
    for (size_t at = 0; at < good.size(); ++at) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ "\x01\x80\xff"[at % 3]);
      try_bytes(bad);
    }
    EXPECT_GT(refused, 400);
    EXPECT_GT(read, 20) << "values may change";
  }
}

TEST(Checkpoint, opens_pytorch_bins_and_prefers_safetensors) {
  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  folder.write("pytorch_model.bin", good_archive());
  const Checkpoint checkpoint = Checkpoint::open(folder.path);
  EXPECT_EQ(checkpoint.format(), "pytorch_model.bin");
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(checkpoint.tensor("b").numel(), 2);
  write_safetensors(folder / "model.safetensors", {{"c", at::ones(1)}});
  EXPECT_EQ(Checkpoint::open(folder.path).names(), std::vector<std::string>{"c"});
}

TEST(Checkpoint, opens_shards_of_pytorch_bins) {
  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  folder.write("one.bin", good_archive());
  folder.write("two.bin", stream({{"c", tensor(storage("7", 6, "FloatStorage", "N"), 0, {6}, {1})}}, {{"7", six, 6}}));
  folder.write("pytorch_model.bin.index.json", R"({"weight_map": {"a": "one.bin", "b": "one.bin", "c": "two.bin"}})");
  const Checkpoint checkpoint = Checkpoint::open(folder.path);
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_TRUE(at::equal(checkpoint.tensor("c"), at::arange(6, at::kFloat)));
  EXPECT_EQ(checkpoint.file("c"), folder / "two.bin");
}

// What torch itself writes, in both forms and protocols 2 and 4, against what safetensors keeps of the same tensors.
TEST(TorchFile, reads_what_torch_writes) {
  const char* python = std::getenv("HESPER_ORACLE_PYTHON");
  if (python == nullptr) GTEST_SKIP() << "needs a Python with torch and safetensors, named by HESPER_ORACLE_PYTHON";
  const TemporaryFolder folder;
  const std::string script = folder.write("save.py", R"(
import sys, torch
from safetensors.torch import save_file
torch.manual_seed(1)
layer = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7), torch.nn.Embedding(11, 3))
state = layer.state_dict()                       # an OrderedDict with _metadata
x = torch.randn(6, 8)
for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool):
    state[str(dtype).split('.')[1]] = (x * 10).to(dtype)
state['whole'], state['transposed'], state['part'], state['scalar'] = x, x.t(), x[1:4, ::2], x[2, 3]
state['parameter'], state['empty'] = torch.nn.Parameter(x + 1), torch.empty(0, 4)
state['tied'] = state['whole']
folder = sys.argv[1]
save_file({k: v.detach().clone().contiguous() for k, v in state.items()}, folder + '/same.safetensors')
torch.save(state, folder + '/zip.bin')
torch.save(dict(state), folder + '/zip4.bin', pickle_protocol=4)
torch.save(state, folder + '/stream.bin', _use_new_zipfile_serialization=False)
torch.save(state, folder + '/stream4.bin', _use_new_zipfile_serialization=False, pickle_protocol=4)
torch.save({'expanded': x[:1].expand(60, 8)}, folder + '/expanded.bin')
torch.save({'epoch': torch.zeros(()).numpy()[()]}, folder + '/numpy.bin')
torch.save({'float8': x.to(torch.float8_e4m3fn)}, folder + '/float8.bin')
torch.save({'sparse': x.to_sparse()}, folder + '/sparse.bin')
torch.save(layer, folder + '/module.bin')
torch.jit.save(torch.jit.script(layer[0]), folder + '/script.bin')
)");
  const std::string log = folder / "log";
  ASSERT_EQ(std::system(fmt::format("'{}' {} {} > {} 2>&1", python, script, folder.path.string(), log).c_str()), 0)
      << read_bytes(log);
  const SafetensorsFile same(folder / "same.safetensors");
  for (const char* name : {"zip.bin", "zip4.bin", "stream.bin", "stream4.bin"}) {
    const TorchFile file(folder / name);
    EXPECT_EQ(file.tensors().size(), same.tensors().size()) << name;
    for (const TensorInfo& info : same.tensors()) {
      const at::Tensor expected = same.view(info.name), read = file.view(info.name);
      EXPECT_EQ(read.scalar_type(), expected.scalar_type()) << name << " " << info.name;
      EXPECT_TRUE(at::equal(read, expected)) << name << " " << info.name;
    }
  }
  const auto refusal_of = [&](const std::string& name) {
    const std::string path = folder / name;
    return error_of<std::runtime_error>([&] { TorchFile{path}; }).substr(path.size());
  };
  EXPECT_EQ(refusal_of("expanded.bin"), ": pickle: a tensor of 480 elements reaching to element 7 of a storage of 48");
  EXPECT_NE(refusal_of("numpy.bin").find("multiarray.scalar\" is not one"), std::string::npos)
      << refusal_of("numpy.bin");
  EXPECT_NE(refusal_of("float8.bin").find("torch."), std::string::npos) << refusal_of("float8.bin");
  EXPECT_NE(refusal_of("sparse.bin").find("torch._utils._rebuild_sparse_tensor"), std::string::npos);
  EXPECT_NE(refusal_of("module.bin").find("torch.nn.modules.container.Sequential"), std::string::npos);
  EXPECT_NE(refusal_of("script.bin").find("__torch__"), std::string::npos) << refusal_of("script.bin");
}

TEST(TorchFile, corpus_of_the_fuzzer) {
  int files = 0;
  for (const auto& file : std::filesystem::directory_iterator(HESPER_SOURCE_DIR "/fuzz/corpus/torch")) {
    const std::string error = error_of<std::runtime_error>([&] { TorchFile{file.path().string()}; });
    EXPECT_EQ(error.empty(), file.path().filename().string().starts_with("good_")) << file.path() << " " << error;
    ++files;
  }
  EXPECT_GE(files, 10);
}

}  // namespace
}  // namespace hesper
