#pragma once
// HTTP by libcurl: one request at a time over a connection that is kept. Redirects are answers here, not followed.
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace hesper {

struct HttpAnswer {
  long status = 0;
  std::map<std::string, std::string> headers;  // names in lower case; the last of each
  std::string body;                            // of an answer that is none of 2xx, cut at 64 KiB

  std::string header(const std::string& name) const;  // "" when it is not there
  bool good() const { return status >= 200 && status < 300; }
  bool redirects() const;
};

/// Host not found or silent, connection broken: what another attempt may heal. One line, with the host.
struct HttpFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Takes a part of the body of a 2xx answer, whose status and headers are complete. May throw: the transfer ends, and
/// the exception passes through.
using HttpSink = std::function<void(const HttpAnswer& answer, std::string_view bytes)>;
/// Called several times a second while a request lasts; may throw as well.
using WhileWaiting = std::function<void()>;

class HttpConnection {
 public:
  /// `timeout`: seconds without a byte after which a request fails.
  HttpConnection(int timeout, WhileWaiting while_waiting);
  ~HttpConnection();

  /// Both throw HttpFailure, and std::runtime_error for a URL that is not http or https or an answer whose head has no
  /// end. `headers` are whole lines, "Range: bytes=5-".
  HttpAnswer head(const std::string& url, const std::vector<std::string>& headers);
  HttpAnswer get(const std::string& url, const std::vector<std::string>& headers, const HttpSink& sink);

 private:
  struct Transfer;
  HttpAnswer request(const std::string& url, const std::vector<std::string>& headers, const HttpSink* sink);

  int timeout_;
  WhileWaiting while_waiting_;
  std::unique_ptr<void, void (*)(void*)> curl_;  // CURL
};

/// "https://host:443": what decides whom a token may be shown to. Throws std::runtime_error where `url` is not http or
/// https with a host.
std::string origin_of(const std::string& url);
/// The absolute URL of a Location header that an answer from `base` gave. Errors as above.
std::string resolve_url(const std::string& base, const std::string& location);
/// Everything but letters, digits and "-._~" as %XX; "/" too unless `keep_slashes`.
std::string percent_encoded(std::string_view text, bool keep_slashes = false);

}  // namespace hesper
