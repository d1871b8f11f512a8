import java.net.InetSocketAddress;
import org.apache.beam.fn.harness.ExternalWorkerService;
import org.apache.beam.sdk.options.PipelineOptions;
import org.apache.beam.sdk.options.PortablePipelineOptions;
import org.apache.beam.vendor.grpc.v1p60p1.io.grpc.netty.NettyServerBuilder;

/** Java's workers in this process, at a free port of 127.0.0.1. Beam's own service listens on every interface. */
class Workers {
  /** Starts them, and says in the options that Java's steps run there. */
  static void start(PipelineOptions options) throws Exception {
    int port =
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0))
            .addService(new ExternalWorkerService(options))
            .build()
            .start()
            .getPort();
    // Not LOOPBACK: transforms of other languages are expanded before the runner would make an environment of that.
    PortablePipelineOptions portable = options.as(PortablePipelineOptions.class);
    portable.setDefaultEnvironmentType("EXTERNAL");
    portable.setDefaultEnvironmentConfig("127.0.0.1:" + port);
  }
}
