// RUN: pin-order
// Nothing is tied: the product before the exchange is outside its window, the one behind needs it.
module @step attributes {mhlo.num_partitions = 8 : i32} {
  func.func public @main(%x: tensor<8x64xf32>, %g: tensor<8x64xf32>) -> (tensor<64x64xf32>, tensor<64x64xf32>) {
    %w = stablehlo.dot_general %g, %x, contracting_dims = [0] x [0] : (tensor<8x64xf32>, tensor<8x64xf32>) -> tensor<64x64xf32>
    %a = "stablehlo.all_to_all"(%x) <{concat_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, split_count = 8 : i64, split_dimension = 0 : i64}> : (tensor<8x64xf32>) -> tensor<8x64xf32>
    %y = stablehlo.dot_general %a, %x, contracting_dims = [0] x [0] : (tensor<8x64xf32>, tensor<8x64xf32>) -> tensor<64x64xf32>
    return %w, %y : tensor<64x64xf32>, tensor<64x64xf32>
  }
}
// CHECK-NOT: optimization_barrier
