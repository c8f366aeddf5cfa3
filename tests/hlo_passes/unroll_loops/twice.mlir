// RUN: unroll-loops{k=2} h100:1x8
// Two microbatches a trip: the second starts from what the first counted and added up.
module @step attributes {mhlo.num_partitions = 8 : i32} {
  func.func public @main(%x: tensor<4x16x32xf32>, %w: tensor<32x32xf32>) -> tensor<16x32xf32> {
    %zero = stablehlo.constant dense<0> : tensor<i32>
    %none = stablehlo.constant dense<0.0> : tensor<16x32xf32>
    %r:2 = stablehlo.while(%i = %zero, %sum = %none) : tensor<i32>, tensor<16x32xf32>
    cond {
      %four = stablehlo.constant dense<4> : tensor<i32>
      %go = stablehlo.compare LT, %i, %four, SIGNED : (tensor<i32>, tensor<i32>) -> tensor<i1>
      stablehlo.return %go : tensor<i1>
    } do {
      %at = stablehlo.constant dense<0> : tensor<i32>
      %b = stablehlo.dynamic_slice %x, %i, %at, %at, sizes = [1, 16, 32] : (tensor<4x16x32xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x16x32xf32>
      %m = stablehlo.reshape %b : (tensor<1x16x32xf32>) -> tensor<16x32xf32>
      %e = "stablehlo.all_to_all"(%m) <{concat_dimension = 0 : i64, split_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, split_count = 8 : i64}> : (tensor<16x32xf32>) -> tensor<16x32xf32>
      %y = stablehlo.dot_general %e, %w, contracting_dims = [1] x [0] : (tensor<16x32xf32>, tensor<32x32xf32>) -> tensor<16x32xf32>
      %more = stablehlo.add %sum, %y : tensor<16x32xf32>
      %one = stablehlo.constant dense<1> : tensor<i32>
      %next = stablehlo.add %i, %one : tensor<i32>
      stablehlo.return %next, %more : tensor<i32>, tensor<16x32xf32>
    }
    return %r#1 : tensor<16x32xf32>
  }
}
// CHECK: dynamic_slice %arg0, %iterArg
// CHECK: "stablehlo.all_to_all"
// CHECK: [[SUM:%[0-9]+]] = stablehlo.add %iterArg{{[_0-9]*}}, %{{.*}} : tensor<16x32xf32>
// CHECK: [[NEXT:%[0-9]+]] = stablehlo.add %iterArg, %{{.*}} : tensor<i32>
// CHECK: dynamic_slice %arg0, [[NEXT]]
// CHECK: "stablehlo.all_to_all"
// CHECK: [[BOTH:%[0-9]+]] = stablehlo.add [[SUM]], %{{.*}} : tensor<16x32xf32>
// CHECK: [[LAST:%[0-9]+]] = stablehlo.add [[NEXT]], %{{.*}} : tensor<i32>
// CHECK: stablehlo.return [[LAST]], [[BOTH]]
