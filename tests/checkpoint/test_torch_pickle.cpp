#include "checkpoint/torch_pickle.h"

#include <gtest/gtest.h>

#include "checkpoint/pickle_bytes.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

using namespace pickle_bytes;

const std::string proto = "\x80\x02";

std::string refusal(const std::string& pickle) {
  return error_of<std::runtime_error>([&] { read_tensor_pickle(pickle); });
}

std::string dict_refusal(const std::string& value) {
  return error_of<std::runtime_error>([&] { read_state_dict_pickle(pickle(value)); });
}

// A tensor's pickle with chosen numel, offset, sizes and strides.
std::string tensor_pickle(int64_t numel, int64_t offset, const std::vector<int64_t>& sizes,
                          const std::vector<int64_t>& strides) {
  return pickle(tensor(storage("0", numel), offset, sizes, strides));
}

TEST(TorchPickle, bounds_of_the_view) {
  const TensorRecord record = read_tensor_pickle(tensor_pickle(12, 2, {2, 3}, {5, 1}));
  EXPECT_EQ(record.storage_key, "0");
  EXPECT_EQ(record.sizes, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(record.strides, (std::vector<int64_t>{5, 1}));
  EXPECT_EQ(record.offset, 2);
  constexpr int64_t huge = int64_t{1} << 62;
  EXPECT_EQ(refusal(tensor_pickle(10, 2, {2, 3}, {5, 1})), "");  // last element is 2 + 5 + 2 = 9
  EXPECT_EQ(refusal(tensor_pickle(9, 2, {2, 3}, {5, 1})),
            "pickle: a tensor of 6 elements reaching to element 9 of a storage of 9");
  EXPECT_EQ(refusal(tensor_pickle(5, 0, {2, 3}, {0, 1})),
            "pickle: a tensor of 6 elements reaching to element 2 of a storage of 5");
  EXPECT_EQ(refusal(tensor_pickle(6, -1, {2, 3}, {3, 1})), "pickle: negative storage offset -1");
  EXPECT_EQ(refusal(tensor_pickle(-6, 0, {0}, {1})), "pickle: storage \"0\" has the negative size -6");
  EXPECT_EQ(refusal(tensor_pickle(6, 0, {2, -3}, {3, 1})), "pickle: negative size -3 or stride 1");
  EXPECT_EQ(refusal(tensor_pickle(6, 0, {2, 3}, {3, -1})), "pickle: negative size 3 or stride -1");
  EXPECT_EQ(refusal(tensor_pickle(6, 0, {huge, huge}, {0, 0})), "pickle: sizes and strides overflow");
  EXPECT_EQ(refusal(tensor_pickle(6, 0, {huge, 0, huge}, {1, 1, 1})), "pickle: sizes and strides overflow");
  EXPECT_EQ(refusal(tensor_pickle(6, huge, {3}, {huge})), "pickle: sizes and strides overflow");
  EXPECT_EQ(refusal(tensor_pickle(6, 0, {2, 3}, {3})), "pickle: 2 sizes but 1 strides");
  EXPECT_EQ(refusal(tensor_pickle(6, 0, std::vector<int64_t>(17, 1), std::vector<int64_t>(17, 1))),
            "pickle: 17 dimensions, more than 16");
}

TEST(TorchPickle, executes_and_allocates_nothing) {
  EXPECT_EQ(refusal(pickle(global("posix", "system") + text("true") + "\x85R")),
            "pickle: \"posix.system\" is not one of the globals that tensors need");
  EXPECT_EQ(refusal(pickle(text("builtins") + text("eval") + "\x93")),
            "pickle: \"builtins.eval\" is not one of the globals that tensors need");
  EXPECT_EQ(refusal(pickle(global("torch.storage", "_load_from_bytes"))),
            "pickle: \"torch.storage._load_from_bytes\" is not one of the globals that tensors need");
  EXPECT_EQ(refusal(pickle(global("torch._utils", "_rebuild_tensor_v3"))),
            "pickle: \"torch._utils._rebuild_tensor_v3\" is not one of the globals that tensors need");
  EXPECT_EQ(refusal(std::string("\x80\x02X\xff\xff\xff\xffx.", 8)), "pickle: cut short at byte 7 of 8");
  EXPECT_EQ(refusal(""), "pickle: cut short at byte 0 of 0");
  EXPECT_EQ(refusal("\x80\x02."), "pickle: stack is empty");
  EXPECT_EQ(refusal("\x80\x02(."), "pickle: the file holds a mark, not one plain tensor");
  EXPECT_EQ(refusal("\x80\x02ht"), "pickle: memo 116 is not set");
  EXPECT_EQ(refusal("\x80\x02i"), "pickle: opcode 0x69 at byte 2 is not one that tensors need");
  EXPECT_EQ(refusal("\x80\x02t"), "pickle: no mark on the stack");
  EXPECT_EQ(refusal(std::string("\x80\x01", 2)), "pickle: protocol 1");
  EXPECT_EQ(refusal(proto + global("torch", "FloatStorage") + ")R."), "pickle: 'torch.FloatStorage' is called");
  EXPECT_EQ(refusal(proto + ")" + std::string(3000, '\x85') + "."),
            "pickle: the file holds a tuple, not one plain tensor");
  EXPECT_EQ(refusal(proto + std::string((1 << 21) + 1, 'N') + "."), "pickle: more than 2097152 values on the stack");
  // A list that holds itself is as harmless as any other.
  EXPECT_EQ(refusal(proto + "]q" + std::string("\0h\0a", 4) + "."),
            "pickle: the file holds a list, not one plain tensor");
}

TEST(TorchPickle, reads_a_state_dict) {
  const std::string a = tensor(storage("0", 6), 0, {2, 3}, {3, 1}),
                    b = tensor(storage("1", 4, "HalfStorage"), 1, {3}, {1});
  const std::string parameter = global("torch._utils", "_rebuild_parameter") + "(" + b + "\x88}tR";
  for (const std::string& value : {dict({{"a", a}, {"b", b}}), dict({{"a", a}, {"b", parameter}}),
                                   // an OrderedDict with its attributes, one item at a time
                                   global("collections", "OrderedDict") + ")R" + text("a") + a + "s" + text("b") + b +
                                       "s" + dict({{"_metadata", dict({{"", dict({{"version", "K\1"}})}})}}) + "b"}) {
    const StateDict read = read_state_dict_pickle(pickle(value));
    ASSERT_EQ(read.size(), 2u);
    EXPECT_EQ(read[0].first, "a");
    EXPECT_EQ(read[0].second.dtype, c10::ScalarType::Float);
    EXPECT_EQ(read[1].first, "b");
    EXPECT_EQ(read[1].second.dtype, c10::ScalarType::Half);
    EXPECT_EQ(read[1].second.offset, 1);
    EXPECT_EQ(read[1].second.storage_key, "1");
  }
}

TEST(TorchPickle, reads_what_python_2_and_early_torch_wrote) {
  const std::string early =
      global("torch._utils", "_rebuild_tensor") + "(" + storage("0", 2) + integer(0) + tuple({2}) + tuple({1}) + "tR";
  const StateDict read = read_state_dict_pickle(pickle(std::string("}(U\1w") + early + "u"));
  ASSERT_EQ(read.size(), 1u);
  EXPECT_EQ(read[0].first, "w");
  EXPECT_EQ(read[0].second.sizes, std::vector<int64_t>{2});
}

TEST(TorchPickle, refuses_a_state_dict_of_other_things) {
  const std::string a = tensor(storage("0", 6), 0, {6}, {1});
  EXPECT_EQ(dict_refusal("]"), "pickle: the file holds a list, not a state dict");
  EXPECT_EQ(dict_refusal(a), "pickle: the file holds a tensor, not a state dict");
  EXPECT_EQ(dict_refusal(dict({{"epoch", "K\3"}})), "pickle: entry \"epoch\" is an integer, not a tensor");
  EXPECT_EQ(dict_refusal(dict({{"model", dict({{"a", a}})}})), "pickle: entry \"model\" is a dict, not a tensor");
  EXPECT_EQ(dict_refusal(dict({{"loss", std::string("G") + std::string(8, '\0')}})),
            "pickle: entry \"loss\" is a number, not a tensor");
  EXPECT_EQ(dict_refusal(dict({{"best", global("numpy.core.multiarray", "scalar")}})),
            "pickle: \"numpy.core.multiarray.scalar\" is not one of the globals that tensors need");
  EXPECT_EQ(dict_refusal(dict({{"a", a}, {"a", a}})), "pickle: entry \"a\" is there twice");
  EXPECT_EQ(dict_refusal(std::string("}K\1") + a + "s"), "pickle: a key of the state dict is an integer, not a text");
  EXPECT_EQ(dict_refusal(std::string("}(") + text("a") + "u"), "pickle: 1 keys and values, an odd number");
  EXPECT_EQ(dict_refusal(dict({{"a", a}, {"b", tensor(storage("0", 7), 0, {6}, {1})}})),
            "pickle: storage \"0\" is 6 of Float and 7 of Float");
  EXPECT_EQ(dict_refusal(dict({{"a", a}, {"b", tensor(storage("0", 6, "IntStorage"), 0, {6}, {1})}})),
            "pickle: storage \"0\" is 6 of Float and 6 of Int");
  EXPECT_EQ(dict_refusal(dict({{"a", tensor(storage("0", 6, "ComplexFloatStorage"), 0, {6}, {1})}})),
            "pickle: \"torch.ComplexFloatStorage\" is not one of the globals that tensors need");
  EXPECT_EQ(dict_refusal(dict({{"a", tensor(storage("0", 6, "FloatStorage", text("view")), 0, {6}, {1})}})),
            "pickle: a storage that is a view of another is not supported");
  EXPECT_EQ(dict_refusal("K\1}b"), "pickle: an OrderedDict with attributes is missing or of the wrong kind");
  EXPECT_EQ(dict_refusal("NK\1a"), "pickle: a list to append to is missing or of the wrong kind");
}

}  // namespace
}  // namespace hesper
