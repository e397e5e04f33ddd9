#include "text/npy.h"

#include <gtest/gtest.h>

#include "files/read_file.h"
#include "temporary_folder.h"
#include "text/mutations.h"

namespace hesper {
namespace {

std::string file_bytes(const std::string& header, const std::string& data, int major = 1) {
  std::string bytes("\x93NUMPY", 6);
  bytes += {static_cast<char>(major), '\0'};
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) bytes += static_cast<char>(header.size() >> (8 * i) & 255);
  return bytes + header + data;
}

at::Tensor parse(const std::string& bytes) { return parse_npy(std::as_bytes(std::span(bytes)), "x.npy"); }

std::string error(const std::string& bytes) {
  return error_of<std::runtime_error>([&] { parse(bytes); });
}

std::string dictionary(const std::string& descr, const std::string& shape, const std::string& order = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
}

TEST(Npy, every_dtype_and_shape_comes_back) {
  const TemporaryFolder folder;
  for (const at::ScalarType type : {at::kInt, at::kLong, at::kFloat, at::kDouble}) {
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{}, {5}, {2, 3}, {2, 3, 4}, {0}, {3, 0}, {1, 1, 1, 1}}) {
      const at::Tensor tensor = at::randn(shape).mul(1000).to(type);
      write_npy(folder / "a.npy", tensor);
      const at::Tensor back = read_npy(folder / "a.npy");
      EXPECT_EQ(back.scalar_type(), type);
      EXPECT_TRUE(at::equal(back, tensor)) << shape.size();
    }
  }
  write_npy(folder / "t.npy", at::arange(6, at::kInt).view({2, 3}).t());  // not contiguous
  EXPECT_TRUE(at::equal(read_npy(folder / "t.npy"), at::arange(6, at::kInt).view({2, 3}).t()));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path), {}), 2) << "nothing else is left";
}

// np.save(f, np.array([[1, 2], [3, 4]], np.int32)) of NumPy 2.4, byte for byte.
TEST(Npy, bytes_are_those_of_numpy) {
  const TemporaryFolder folder;
  write_npy(folder / "a.npy", at::tensor({1, 2, 3, 4}, at::kInt).view({2, 2}));
  std::string header = dictionary("<i4", "(2, 2)");
  header += std::string(117 - header.size(), ' ') + "\n";
  const std::string data("\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0", 16);
  EXPECT_EQ(read_file(folder / "a.npy"), file_bytes(header, data));
  write_npy(folder / "b.npy", at::tensor({7}, at::kInt));
  EXPECT_NE(read_file(folder / "b.npy").find("'shape': (1,), }"), std::string::npos);
}

TEST(Npy, versions_2_and_3_and_odd_spacing) {
  const std::string data("\1\0\0\0\2\0\0\0", 8);
  for (const int major : {1, 2, 3}) {
    EXPECT_TRUE(at::equal(parse(file_bytes(dictionary("<i4", "(2,)"), data, major)), at::tensor({1, 2}, at::kInt)));
  }
  EXPECT_EQ(parse(file_bytes("{\"shape\":(2,1),'fortran_order':False,'descr':'<i4'}  \n", data)).sizes(),
            (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(parse(file_bytes(dictionary("<i4", "(2,)", "True"), data)).numel(), 2);  // one order in 1-D
}

TEST(Npy, hostile_bytes_are_refused_in_one_line) {
  const std::string data(8, '\0');
  EXPECT_EQ(error(""), "x.npy: not a .npy file");
  EXPECT_EQ(error("PK\3\4 something else"), "x.npy: not a .npy file");
  EXPECT_EQ(error(file_bytes("{}", "", 4)), "x.npy: .npy version 4 is not supported (1 to 3 are)");
  EXPECT_EQ(error(std::string("\x93NUMPY\1\0\xff\xff", 10)),
            "x.npy: truncated .npy header: 65535 bytes named, 0 there");
  EXPECT_EQ(error(std::string("\x93NUMPY\2\0\xff\xff\xff\xff", 12)),
            "x.npy: truncated .npy header: 4294967295 bytes named, 0 there");
  EXPECT_EQ(error(file_bytes(dictionary("<i4", "(3,)"), data)), "x.npy: 8 bytes of data, but the shape needs 12");
  EXPECT_EQ(error(file_bytes(dictionary("<i4", "(1,)"), data)), "x.npy: 8 bytes of data, but the shape needs 4");
  EXPECT_EQ(error(file_bytes(dictionary(">i4", "(2,)"), data)),
            "x.npy: dtype '>i4' is not supported (<i4, <i8, <f4, <f8 are)");
  EXPECT_EQ(error(file_bytes(dictionary("|O", "(2,)"), data)),
            "x.npy: dtype '|O' is not supported (<i4, <i8, <f4, <f8 are)");
  EXPECT_EQ(error(file_bytes(dictionary("<i4", "(1, 2)", "True"), data)),
            "x.npy: Fortran order is not supported: save it in C order");
  EXPECT_EQ(error(file_bytes(dictionary("<i8", "(4294967296, 4294967296)"), data)),
            "x.npy: the shape is larger than 64 bits can count");
  for (const char* shape : {"(0, 9223372036854775807, 9223372036854775807)", "(0, 2147483647, 2147483647, 2147483647)"})
    EXPECT_EQ(error(file_bytes(dictionary("<f4", shape), "")), "x.npy: the shape is larger than 64 bits can count");
  for (const std::string& header :
       {std::string(), std::string("{"), std::string("{}"), dictionary("<i4", "(-1,)"), dictionary("<i4", "(2"),
        dictionary("<i4", "2"), dictionary("<i4", "(99999999999999999999,)"), dictionary("<i4", "(2,)", "0"),
        dictionary("<i4", "(2,)") + "x", std::string("{'descr': [('a', '<i4')]}"), std::string("{'descr': '<i4"),
        std::string("{'what': 1}"), std::string("{'de\ncr': '<i4'}"), std::string("{'descr': '<i4', 'shape': (2,)}")}) {
    EXPECT_TRUE(error(file_bytes(header, data)).starts_with("x.npy: bad .npy header: ")) << header;
  }
}

TEST(Npy, no_mutation_of_a_good_file_crashes) {
  const std::string good = file_bytes(dictionary("<i4", "(2, 1)"), std::string(8, '\1'));
  Mutations mutations;
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::string message = error(mutations.of(good, 3));
    EXPECT_TRUE(message.empty() || message.starts_with("x.npy: ")) << message;
    accepted += message.empty();
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, 20000);
}

TEST(Npy, files_that_cannot_be_read_or_written) {
  const TemporaryFolder folder;
  EXPECT_EQ(error_of<std::runtime_error>([&] { read_npy(folder / "none.npy"); }),
            (folder / "none.npy").string() + ": cannot open: No such file or directory");
  EXPECT_EQ(error_of<std::runtime_error>([&] { read_npy(folder.path); }),
            folder.path.string() + ": not a regular file");
  EXPECT_EQ(error_of<std::runtime_error>([&] { write_npy("/proc/no.npy", at::zeros({2})); }),
            "cannot write /proc/no.npy: No such file or directory");
  EXPECT_EQ(error_of<std::invalid_argument>([&] { write_npy(folder / "h.npy", at::zeros({2}, at::kHalf)); }),
            (folder / "h.npy").string() + ": cannot write dtype Half as .npy");
  std::filesystem::create_directory(folder / "folder.npy");
  EXPECT_THROW(write_npy(folder / "folder.npy", at::zeros({2})), std::runtime_error);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path), {}), 1) << "nothing else is left";
}

}  // namespace
}  // namespace hesper
