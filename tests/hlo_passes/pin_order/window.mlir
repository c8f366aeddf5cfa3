// RUN: pin-order
// A product between an exchange and its first reader is tied to it, in front and behind.
module @step attributes {mhlo.num_partitions = 8 : i32} {
  func.func public @main(%x: tensor<8x64xf32>, %g: tensor<8x64xf32>) -> (tensor<8x64xf32>, tensor<64x64xf32>) {
    %h = stablehlo.tanh %x : tensor<8x64xf32>
    %a = "stablehlo.all_to_all"(%h) <{concat_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, split_count = 8 : i64, split_dimension = 0 : i64}> : (tensor<8x64xf32>) -> tensor<8x64xf32>
    %w = stablehlo.dot_general %g, %x, contracting_dims = [0] x [0] : (tensor<8x64xf32>, tensor<8x64xf32>) -> tensor<64x64xf32>
    %t = stablehlo.transpose %w, dims = [1, 0] : (tensor<64x64xf32>) -> tensor<64x64xf32>
    %y = stablehlo.negate %a : tensor<8x64xf32>
    return %y, %t : tensor<8x64xf32>, tensor<64x64xf32>
  }
}
// CHECK: %[[H:.*]] = stablehlo.tanh
// CHECK: %[[PRE:.*]]:2 = stablehlo.optimization_barrier %[[H]], %arg1
// CHECK: %[[A:.*]] = "stablehlo.all_to_all"(%[[PRE]]#0)
// CHECK: %[[W:.*]] = stablehlo.dot_general %[[PRE]]#1, %arg0
// CHECK: %[[T:.*]] = stablehlo.transpose %[[W]]
// CHECK: %[[POST:.*]]:2 = stablehlo.optimization_barrier %[[A]], %[[T]]
// CHECK: %[[Y:.*]] = stablehlo.negate %[[POST]]#0
// CHECK: return %[[Y]], %[[POST]]#1
