import java.net.InetSocketAddress;
import org.apache.beam.fn.harness.ExternalWorkerService;
import org.apache.beam.model.fnexecution.v1.BeamFnApi.StartWorkerRequest;
import org.apache.beam.model.fnexecution.v1.BeamFnApi.StartWorkerResponse;
import org.apache.beam.model.fnexecution.v1.BeamFnApi.StopWorkerRequest;
import org.apache.beam.model.fnexecution.v1.BeamFnApi.StopWorkerResponse;
import org.apache.beam.model.fnexecution.v1.BeamFnExternalWorkerPoolGrpc.BeamFnExternalWorkerPoolImplBase;
import org.apache.beam.sdk.options.PipelineOptions;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.sdk.options.PortablePipelineOptions;
import org.apache.beam.vendor.grpc.v1p60p1.io.grpc.netty.NettyServerBuilder;
import org.apache.beam.vendor.grpc.v1p60p1.io.grpc.stub.StreamObserver;

/** Java's workers in this process, at a free port of 127.0.0.1. Beam's own service listens on every interface. */
class Workers extends BeamFnExternalWorkerPoolImplBase {
  /** Starts them, and says in the options that Java's steps run there. */
  static void start(PipelineOptions options) throws Exception {
    int port =
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0))
            .addService(new Workers())
            .build()
            .start()
            .getPort();
    // Not LOOPBACK: transforms of other languages are expanded before the runner would make an environment of that.
    PortablePipelineOptions portable = options.as(PortablePipelineOptions.class);
    portable.setDefaultEnvironmentType("EXTERNAL");
    portable.setDefaultEnvironmentConfig("127.0.0.1:" + port);
  }

  @Override
  public void startWorker(StartWorkerRequest request, StreamObserver<StartWorkerResponse> answer) {
    // Options hold the threads, which the first worker that ends takes with it: each has its own, and Flink starts several.
    new ExternalWorkerService(PipelineOptionsFactory.create()).startWorker(request, answer);
  }

  @Override
  public void stopWorker(StopWorkerRequest request, StreamObserver<StopWorkerResponse> answer) {
    // It ends when the engine closes its streams.
    answer.onNext(StopWorkerResponse.getDefaultInstance());
    answer.onCompleted();
  }
}
