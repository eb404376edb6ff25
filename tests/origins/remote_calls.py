"""A gRPC service and its client, by `grpcio`, in bytes without a schema."""

import concurrent.futures
import threading

import grpc


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/test.Echo/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/test.Echo/Down": grpc.unary_stream_rpc_method_handler(self.down),
            "/test.Echo/Up": grpc.stream_unary_rpc_method_handler(self.up),
            "/test.Echo/Both": grpc.stream_stream_rpc_method_handler(self.both),
            "/test.Echo/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
        }.get(details.method)

    @staticmethod
    def unary(request, context):
        context.set_trailing_metadata((("seen", str(len(request))),))
        return request

    @staticmethod
    def down(request, _):
        for number in range(int(request)):
            yield b"%d" % number

    @staticmethod
    def up(requests, _):
        return b"%d" % sum(len(request) for request in requests)

    @staticmethod
    def both(requests, _):
        for request in requests:
            yield request[::-1]

    @staticmethod
    def fail(_, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")


def server():
    """A started server and its port."""
    found = grpc.server(concurrent.futures.ThreadPoolExecutor(16), handlers=[Service()])
    port = found.add_insecure_port("127.0.0.1:0")
    found.start()
    return found, port


def story(port, ca, check):
    """Talks to the service through the edge."""
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    options = [("grpc.ssl_target_name_override", "grpc.test"), ("grpc.default_authority", "grpc.test")]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        answer, call = channel.unary_unary("/test.Echo/Unary").with_call(b"hello", timeout=20)
        check(answer == b"hello", "a unary call")
        check(("seen", "5") in [tuple(pair) for pair in call.trailing_metadata()], "its trailers")
        blob = bytes(range(256)) * (3 << 12)
        answer = channel.unary_unary("/test.Echo/Unary")(blob, timeout=20)
        check(answer == blob, "a unary call of 3 MiB")
        found = list(channel.unary_stream("/test.Echo/Down")(b"1000", timeout=20))
        check(found == [b"%d" % number for number in range(1000)], "a stream down of 1,000")
        parts = (b"x" * 1000 for _ in range(1000))
        check(channel.stream_unary("/test.Echo/Up")(parts, timeout=20) == b"1000000", "a stream up")
        both(channel, check)
        try:
            channel.unary_unary("/test.Echo/Fail")(b"", timeout=20)
            check(False, "a failure is told")
        except grpc.RpcError as error:
            found = (error.code(), error.details())
            check(found == (grpc.StatusCode.FAILED_PRECONDITION, "not today"), f"a failure: {found}")
        many(channel, check)


def both(channel, check):
    """Each question waits for the answer before it: nobody may hold anything back."""
    turn = threading.Semaphore(1)
    words = [b"one", b"two", b"three"]

    def ask():
        for word in words:
            turn.acquire()
            yield word

    found = []
    for answer in channel.stream_stream("/test.Echo/Both")(ask(), timeout=20):
        found.append(answer)
        turn.release()
    check(found == [word[::-1] for word in words], "both ways in turns")


def many(channel, check):
    call = channel.unary_unary("/test.Echo/Unary")
    waiting = [call.future(b"%d" % number, timeout=20) for number in range(200)]
    right = all(future.result() == b"%d" % number for number, future in enumerate(waiting))
    check(right, "200 calls at once, each with its own answer")


def refused(port, ca, check):
    """Where the origin is gone the client is told so in its own language."""
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    options = [("grpc.ssl_target_name_override", "grpc.test"), ("grpc.default_authority", "grpc.test")]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        try:
            channel.unary_unary("/test.Echo/Unary")(b"hello", timeout=20)
            check(False, "an origin that is gone")
        except grpc.RpcError as error:
            check(error.code() == grpc.StatusCode.UNAVAILABLE, f"an origin that is gone: {error.code()}")
