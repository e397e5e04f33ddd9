#include "hub/http.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "files/printable.h"

namespace hesper {
namespace {

constexpr size_t max_head_bytes = 256 << 10;  // of all header lines of one answer
constexpr size_t max_error_bytes = 64 << 10;  // kept of the body of an answer that is an error
constexpr long connect_seconds = 10;

struct Text {  // what libcurl hands out and wants back
  char* text = nullptr;
  ~Text() { curl_free(text); }
};

class Url {
 public:
  explicit Url(const std::string& url) : url_(curl_url()) {
    if (!url_) throw std::bad_alloc();
    set(url);
  }
  Url(const Url&) = delete;
  Url& operator=(const Url&) = delete;
  ~Url() { curl_url_cleanup(url_); }

  void set(const std::string& url) {  // over an earlier one: relative to it
    if (curl_url_set(url_, CURLUPART_URL, url.c_str(), 0) != CURLUE_OK || !is_web()) {
      throw std::runtime_error(fmt::format("{}: not a URL of http or https", printable(url)));
    }
  }
  std::string part(CURLUPart part, unsigned flags = 0) const {
    Text text;
    return curl_url_get(url_, part, &text.text, flags) == CURLUE_OK ? text.text : "";
  }

 private:
  bool is_web() const {
    const std::string scheme = part(CURLUPART_SCHEME);
    return (scheme == "http" || scheme == "https") && !part(CURLUPART_HOST).empty();
  }
  CURLU* url_;
};

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin);
}

}  // namespace

std::string HttpAnswer::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

bool HttpAnswer::redirects() const {
  return (status == 301 || status == 302 || status == 303 || status == 307 || status == 308) &&
         headers.contains("location");
}

// What the callbacks of one request work on. Exceptions wait in `thrown`: they may not cross libcurl.
struct HttpConnection::Transfer {
  CURL* curl;
  const HttpSink* sink;
  const WhileWaiting& while_waiting;
  HttpAnswer answer;
  size_t head_bytes = 0;
  std::exception_ptr thrown;

  template <typename Step>
  bool guarded(Step&& step) {
    try {
      step();
      return true;
    } catch (...) {
      thrown = std::current_exception();
      return false;
    }
  }

  static size_t take_header(char* data, size_t, size_t size, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    return transfer.guarded([&] { transfer.header({data, size}); }) ? size : 0;
  }
  static size_t take_body(char* data, size_t, size_t size, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    return transfer.guarded([&] { transfer.body({data, size}); }) ? size : 0;
  }
  static int wait(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    auto& transfer = *static_cast<Transfer*>(self);
    return transfer.guarded([&] { transfer.while_waiting(); }) ? 0 : 1;
  }

  void header(std::string_view line) {
    head_bytes += line.size();
    if (head_bytes > max_head_bytes) {
      throw std::runtime_error(fmt::format("an answer with more than {} bytes of headers", max_head_bytes));
    }
    if (line.starts_with("HTTP/")) answer.headers.clear();  // after "100 Continue" or a proxy's answer
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return;
    answer.headers[lower(std::string(trimmed(line.substr(0, colon))))] = trimmed(line.substr(colon + 1));
  }

  void body(std::string_view bytes) {
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer.status);
    if (answer.good() && sink) {
      (*sink)(answer, bytes);
    } else {
      answer.body += bytes.substr(0, max_error_bytes - std::min(max_error_bytes, answer.body.size()));
    }
  }
};

HttpConnection::HttpConnection(int timeout, WhileWaiting while_waiting)
    : timeout_(timeout), while_waiting_(std::move(while_waiting)), curl_(curl_easy_init(), curl_easy_cleanup) {
  if (!curl_) throw std::runtime_error("libcurl cannot start");
}

HttpConnection::~HttpConnection() = default;

HttpAnswer HttpConnection::head(const std::string& url, const std::vector<std::string>& headers) {
  return request(url, headers, nullptr);
}

HttpAnswer HttpConnection::get(const std::string& url, const std::vector<std::string>& headers, const HttpSink& sink) {
  return request(url, headers, &sink);
}

HttpAnswer HttpConnection::request(const std::string& url, const std::vector<std::string>& headers,
                                   const HttpSink* sink) {
  const std::string origin = origin_of(url);
  CURL* curl = curl_.get();
  curl_easy_reset(curl);  // options only; the connection stays
  std::unique_ptr<curl_slist, void (*)(curl_slist*)> lines(nullptr, curl_slist_free_all);
  for (const std::string& line : headers) {
    curl_slist* longer = curl_slist_append(lines.get(), line.c_str());
    if (!longer) throw std::bad_alloc();
    (void)lines.release();
    lines.reset(longer);
  }
  Transfer transfer{curl, sink, while_waiting_, {}, 0, nullptr};
  char message[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_NOBODY, sink ? 0L : 1L);
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, lines.get());
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "hesper/" HESPER_VERSION);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, std::min(connect_seconds, static_cast<long>(timeout_)));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, static_cast<long>(timeout_));
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, message);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &Transfer::take_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &Transfer::take_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &Transfer::wait);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  const CURLcode code = curl_easy_perform(curl);
  if (transfer.thrown) std::rethrow_exception(transfer.thrown);
  if (code == CURLE_OPERATION_TIMEDOUT) {
    throw HttpFailure(fmt::format("{}: no answer within {} s", origin, timeout_));
  }
  if (code != CURLE_OK) {
    throw HttpFailure(fmt::format("{}: {}", origin, message[0] ? message : curl_easy_strerror(code)));
  }
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &transfer.answer.status);
  return std::move(transfer.answer);
}

std::string origin_of(const std::string& url) {
  const Url parsed(url);
  return fmt::format("{}://{}:{}", parsed.part(CURLUPART_SCHEME), lower(parsed.part(CURLUPART_HOST)),
                     parsed.part(CURLUPART_PORT, CURLU_DEFAULT_PORT));
}

std::string resolve_url(const std::string& base, const std::string& location) {
  Url url(base);
  url.set(location);
  return url.part(CURLUPART_URL);
}

std::string percent_encoded(std::string_view text, bool keep_slashes) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                       c == '.' || c == '_' || c == '~' || (c == '/' && keep_slashes);
    if (plain) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace hesper
