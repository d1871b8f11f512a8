import java.net.InetSocketAddress;
import org.apache.beam.runners.fnexecution.artifact.ArtifactRetrievalService;
import org.apache.beam.sdk.expansion.service.ExpansionService;
import org.apache.beam.sdk.expansion.service.ExpansionServiceOptions;
import org.apache.beam.sdk.options.PipelineOptions;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.vendor.grpc.v1p60p1.io.grpc.Server;
import org.apache.beam.vendor.grpc.v1p60p1.io.grpc.netty.NettyServerBuilder;

/**
 * Java's expansion service with all transforms on the class path, at a free port of 127.0.0.1, whose steps run in this
 * process. Beam's own program listens on every interface.
 */
public class Expansion {
  public static void main(String[] args) throws Exception {
    PipelineOptions options =
        PipelineOptionsFactory.fromArgs("--javaClassLookupAllowlistFile=*").as(ExpansionServiceOptions.class);
    Workers.start(options);
    Server server =
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0))
            .addService(new ExpansionService(options))
            .addService(new ArtifactRetrievalService())
            .build()
            .start();
    System.out.println("expansion service 127.0.0.1:" + server.getPort());
    server.awaitTermination();
  }
}
