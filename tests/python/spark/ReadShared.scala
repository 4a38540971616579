// Reads shared tables from Scala: `ReadShared PROFILE`. Prints how many rows and changes it found, and how many
// rows a stream saw.

import org.apache.spark.sql.SparkSession

object ReadShared {
  def main(arguments: Array[String]): Unit = {
    val profile = arguments(0)
    val spark = SparkSession.builder
      .master("local[2]")
      .config("spark.driver.bindAddress", "127.0.0.1")
      .config("spark.driver.host", "127.0.0.1")
      .config("spark.ui.enabled", "false")
      .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
      .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
      .getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    val rows = spark.read.format("deltaSharing").load(s"$profile#all.spark.py_versions")
    println(s"rows ${rows.count()}")
    val changes = spark.read
      .format("deltaSharing")
      .option("readChangeFeed", "true")
      .option("startingVersion", "0")
      .load(s"$profile#all.spark.change_data_feed")
    println(s"changes ${changes.collect().length}")
    val stream = spark.readStream.format("deltaSharing").load(s"$profile#all.spark.py_checkpointed")
    val query = stream.writeStream.format("memory").queryName("seen").start()
    query.processAllAvailable()
    query.stop()
    println(s"streamed ${spark.table("seen").count()}")
    spark.stop()
  }
}
