// All-to-alls as XLA's partitioner leaves them, and as XLA writes JAX's own: both become JAX's.

module {
  // The peers have a dim of their own from the start.
  // CHECK-LABEL: func.func @blocked
  // CHECK-NOT: transpose
  // CHECK: "stablehlo.all_to_all"(%arg0)
  // CHECK-SAME: concat_dimension = 0 : i64
  // CHECK-SAME: split_dimension = 1 : i64
  // CHECK-SAME: (tensor<4x16x32xf32>) -> tensor<32x2x32xf32>
  // CHECK-NEXT: return
  func.func @blocked(%arg0: tensor<4x16x32xf32>) -> tensor<32x2x32xf32> {
    %0 = stablehlo.reshape %arg0 : (tensor<4x16x32xf32>) -> tensor<4x8x2x32xf32>
    %1 = "stablehlo.all_to_all"(%0) <{concat_dimension = 1 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, split_count = 8 : i64, split_dimension = 1 : i64}> : (tensor<4x8x2x32xf32>) -> tensor<4x8x2x32xf32>
    %2 = stablehlo.transpose %1, dims = [1, 0, 2, 3] : (tensor<4x8x2x32xf32>) -> tensor<8x4x2x32xf32>
    %3 = stablehlo.reshape %2 : (tensor<8x4x2x32xf32>) -> tensor<32x2x32xf32>
    return %3 : tensor<32x2x32xf32>
  }

  // The dim is taken apart after the exchange.
  // CHECK-LABEL: func.func @whole
  // CHECK: "stablehlo.all_to_all"(%arg0)
  // CHECK-SAME: concat_dimension = 1 : i64
  // CHECK-SAME: split_dimension = 0 : i64
  // CHECK-SAME: (tensor<16x3x32xf32>) -> tensor<2x24x32xf32>
  // CHECK-NEXT: return
  func.func @whole(%arg0: tensor<16x3x32xf32>) -> tensor<2x24x32xf32> {
    %0 = "stablehlo.all_to_all"(%arg0) <{concat_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, split_count = 8 : i64, split_dimension = 0 : i64}> : (tensor<16x3x32xf32>) -> tensor<16x3x32xf32>
    %1 = stablehlo.reshape %0 : (tensor<16x3x32xf32>) -> tensor<8x2x3x32xf32>
    %2 = stablehlo.transpose %1, dims = [1, 0, 2, 3] : (tensor<8x2x3x32xf32>) -> tensor<2x8x3x32xf32>
    %3 = stablehlo.reshape %2 : (tensor<2x8x3x32xf32>) -> tensor<2x24x32xf32>
    return %3 : tensor<2x24x32xf32>
  }

  // A transpose across a dim of size 1 was written as a reshape.
  // CHECK-LABEL: func.func @folded
  // CHECK: "stablehlo.all_to_all"(%arg0)
  // CHECK-SAME: concat_dimension = 0 : i64
  // CHECK-SAME: split_dimension = 1 : i64
  // CHECK-SAME: (tensor<1x16x32xf32>) -> tensor<8x2x32xf32>
  // CHECK-NEXT: return
  func.func @folded(%arg0: tensor<1x16x32xf32>) -> tensor<8x2x32xf32> {
    %0 = stablehlo.reshape %arg0 : (tensor<1x16x32xf32>) -> tensor<1x8x2x32xf32>
    %1 = "stablehlo.all_to_all"(%0) <{concat_dimension = 1 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, split_count = 8 : i64, split_dimension = 1 : i64}> : (tensor<1x8x2x32xf32>) -> tensor<1x8x2x32xf32>
    %2 = stablehlo.reshape %1 : (tensor<1x8x2x32xf32>) -> tensor<8x2x32xf32>
    return %2 : tensor<8x2x32xf32>
  }

  // What is read twice, and what is moved elsewhere, stays.
  // CHECK-LABEL: func.func @read_twice
  // CHECK: concat_dimension = 1 : i64
  // CHECK-SAME: split_dimension = 1 : i64
  // CHECK: transpose
  func.func @read_twice(%arg0: tensor<4x8x2xf32>) -> (tensor<8x4x2xf32>, tensor<4x8x2xf32>) {
    %0 = "stablehlo.all_to_all"(%arg0) <{concat_dimension = 1 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, split_count = 8 : i64, split_dimension = 1 : i64}> : (tensor<4x8x2xf32>) -> tensor<4x8x2xf32>
    %1 = stablehlo.transpose %0, dims = [1, 0, 2] : (tensor<4x8x2xf32>) -> tensor<8x4x2xf32>
    return %1, %0 : tensor<8x4x2xf32>, tensor<4x8x2xf32>
  }

  // CHECK-LABEL: func.func @other_dims_move_too
  // CHECK: concat_dimension = 1 : i64
  // CHECK-SAME: split_dimension = 1 : i64
  // CHECK: transpose
  func.func @other_dims_move_too(%arg0: tensor<4x8x2xf32>) -> tensor<8x2x4xf32> {
    %0 = "stablehlo.all_to_all"(%arg0) <{concat_dimension = 1 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, split_count = 8 : i64, split_dimension = 1 : i64}> : (tensor<4x8x2xf32>) -> tensor<4x8x2xf32>
    %1 = stablehlo.transpose %0, dims = [1, 2, 0] : (tensor<4x8x2xf32>) -> tensor<8x2x4xf32>
    return %1 : tensor<8x2x4xf32>
  }
}
